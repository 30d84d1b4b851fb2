"""Where a reference leads in the registry."""

from __future__ import annotations

from dataclasses import dataclass

from eul_serve.format import Manifest, Reference
from eul_serve.registry import AliasState, Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a reference means at one moment."""

    reference: Reference
    """The reference."""
    revision: str
    """The revision that it means now."""
    manifest: Manifest
    """That revision's manifest."""
    state: AliasState | None
    """The alias as the registry has it; None for a reference by revision."""

    @classmethod
    def read(cls, registry: Registry, reference: Reference) -> Target:
        """Look a reference up; blocks.

        Args:
            registry: Where to look.
            reference: The reference.

        Returns:
            Where it leads.

        Raises:
            NotFoundError: Nowhere.
            BundleFormatError: What the registry stores of it is damaged.
        """
        if reference.alias is None:
            revision, state = reference.revision or "", None
        else:
            # This alias alone: a damaged file of another one must not hold it where it is.
            state = registry.alias(reference.name, reference.alias)
            revision = state.revision
        manifest = registry.manifest(reference.name, revision)
        return cls(reference=reference, revision=revision, manifest=manifest, state=state)
