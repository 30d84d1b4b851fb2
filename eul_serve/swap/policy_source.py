"""The policy file as the server follows it: read again at every poll, and kept where the new one is wrong."""

from __future__ import annotations

import logging
from pathlib import Path

from eul_serve.errors import EulError
from eul_serve.format import Reference
from eul_serve.metrics import Metrics
from eul_serve.policy import Policy, load_policy

_log = logging.getLogger("eul_serve.swap")


class PolicySource:
    """The policy in force."""

    def __init__(self, path: Path, tokens: Path | None, metrics: Metrics) -> None:
        self._path = path
        self._tokens = tokens
        self._metrics = metrics
        self._complaint = ""
        self.current = load_policy(path, tokens)
        """The policy in force."""

    def read(self) -> Policy | None:
        """Read the files again; blocks. Return None, and say why once, where they are not a policy."""
        try:
            policy = load_policy(self._path, self._tokens)
        except EulError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                self._metrics.policy_loads.labels(outcome="refused").inc()
                _log.error("the policy in force stays, as the new one is refused: %s", error)
            return None
        self._complaint = ""
        return policy

    def put(self, policy: Policy) -> bool:
        """Put a policy in force; return whether it differs from the one before."""
        if policy.epoch == self.current.epoch:
            return False
        self.current = policy
        self._metrics.policy_loads.labels(outcome="loaded").inc()
        _log.info("policy %s is in force", policy.epoch)
        return True


def wanted_references(policy: Policy) -> dict[str, Reference]:
    """Return what to follow for the tenants of a policy: their defaults and bundles; a bare name is its `stable`."""
    found: dict[str, Reference] = {}
    for tenant in policy.tenants.values():
        references = [Reference.parse(str(grant)) for grant in tenant.bundles]
        if isinstance(tenant.default, Reference):
            references.append(tenant.default)
        found.update((str(reference), reference) for reference in references)
    return found


def still_allowed(policy: Policy, reference: Reference) -> bool:
    """Return whether any tenant of a policy may use a reference."""
    return any(tenant.allows(reference) for tenant in policy.tenants.values())
