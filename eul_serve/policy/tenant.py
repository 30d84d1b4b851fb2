"""One tenant's policy, and the questions that the service asks it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal

from eul_serve.errors import RefusedError
from eul_serve.format import Reference, check_name
from eul_serve.policy.quota import Quota
from eul_serve.policy.rights import Right


class Base(enum.Enum):
    """The type of `BASE`, so that `adapter is BASE` narrows."""

    BASE = "base"


BASE: Literal[Base.BASE] = Base.BASE
"""The base model, in the place of a reference to a bundle."""

REFUSAL = (
    "no such adapter for this tenant; ask for one that your policy names, or leave the adapter empty for your default"
)
"""The one text for unknown and forbidden adapters, so that nobody learns which bundles others have."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One entry of a tenant's `bundles`."""

    name: str
    """Name of the bundle."""
    alias: str | None = None
    """The alias that may be used; None for all, or where `revision` is given."""
    revision: str | None = None
    """The revision that may be used; None for all, or where `alias` is given."""

    @classmethod
    def parse(cls, text: str) -> Grant:
        """Parse `name` (every alias and revision), `name:alias` or `name@sha256:...` (that one alone).

        Args:
            text: The entry.

        Returns:
            The grant.

        Raises:
            InputError: The text is none of these.
        """
        if ":" not in text and "@" not in text:
            return cls(check_name(text, "bundle"))
        reference = Reference.parse(text)
        return cls(reference.name, reference.alias, reference.revision)

    def allows(self, reference: Reference) -> bool:
        """Return whether a reference falls under this entry."""
        if self.name != reference.name:
            return False
        return (self.alias, self.revision) in ((None, None), (reference.alias, reference.revision))

    def __str__(self) -> str:
        if self.revision is not None:
            return f"{self.name}@{self.revision}"
        return self.name if self.alias is None else f"{self.name}:{self.alias}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPolicy:
    """What one tenant may do; everything else is denied."""

    name: str
    """Name of the tenant."""
    default: Reference | Base | None = None
    """What an empty adapter means; None where the tenant has to name one."""
    bundles: tuple[Grant, ...] = ()
    """The bundles that it may use."""
    base: bool = False
    """Whether it may use the base model."""
    rights: frozenset[Right] = frozenset()
    """The rights that it has."""
    certificates: frozenset[str] = frozenset()
    """Alternative names of client certificates that are this tenant's."""
    quota: Quota = field(default_factory=Quota)
    """How much of the server it may use."""

    @property
    def default_adapter(self) -> str:
        """What an empty adapter means, as text; empty where the tenant has to name one."""
        return BASE.value if self.default is BASE else str(self.default or "")

    def authorize(self, adapter: str) -> Reference | Base:
        """Return what a request's `adapter` means, where the tenant may use it.

        Whether the bundle exists is for the caller to find out, and to refuse with `REFUSAL` where it does not.

        Args:
            adapter: Empty for the default, `base`, `name`, `name:alias` or `name@sha256:...`.

        Returns:
            A reference that the policy allows, or `BASE`.

        Raises:
            RefusedError: Unknown or forbidden (one text for both), or empty without a default.
            InputError: The text is no adapter's name at all.
        """
        if not adapter:
            if self.default is None:
                raise RefusedError(
                    "the adapter is empty and this tenant has no default; name one that your policy allows"
                )
            return self.default
        if adapter == BASE.value:
            if not self.base:
                raise RefusedError(REFUSAL)
            return BASE
        reference = Reference.parse(adapter)
        if not self.allows(reference):
            raise RefusedError(REFUSAL)
        return reference

    def allows(self, reference: Reference) -> bool:
        """Return whether the tenant may use what a reference names."""
        return any(grant.allows(reference) for grant in self.bundles)

    def require(self, right: Right) -> None:
        """Return where the tenant has a right.

        Args:
            right: What the request asks for.

        Raises:
            RefusedError: It has not.
        """
        if right not in self.rights:
            raise RefusedError(
                f'this tenant has no right {right!r}; leave that out, or ask for `rights = ["{right}"]` in its policy'
            )
