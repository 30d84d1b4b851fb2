"""What a tenant can name: the aliases that its policy allows and the registry has, and nothing else."""

from __future__ import annotations

from eul_serve.errors import NotFoundError
from eul_serve.format import Reference
from eul_serve.policy import Grant, TenantPolicy
from eul_serve.registry import Registry


class Adapters:
    """Looks into the registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def references(self, tenant: TenantPolicy) -> list[Reference]:
        """Return every alias, or revision, that a tenant may use; blocks.

        Args:
            tenant: The policy of one tenant.

        Returns:
            The references in the order of their names.
        """
        found = {str(one): one for grant in tenant.bundles for one in self._expand(grant)}
        return [found[key] for key in sorted(found)]

    def _expand(self, grant: Grant) -> list[Reference]:
        if grant.alias is not None:
            return [Reference(grant.name, grant.alias, None)]
        if grant.revision is not None:
            return [Reference(grant.name, None, grant.revision)]
        try:
            return [Reference(grant.name, alias, None) for alias in self._registry.alias_names(grant.name)]
        except NotFoundError:  # no registry there yet
            return []
