"""A caller, and what proved who it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from eul_serve.policy import Policy, TenantPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What came with a call."""

    token: str | None = field(default=None, repr=False)
    """Bearer token; None where there is none."""
    names: frozenset[str] = frozenset()
    """Alternative names of a client certificate that the transport has verified."""


class Proof(Protocol):
    """What showed whose call it is; asked again when the policy or the issuer's keys change."""

    def tenant_in(self, policy: Policy) -> TenantPolicy:
        """Return the tenant under a policy.

        Args:
            policy: The policy in force now.

        Returns:
            The one tenant that it names.

        Raises:
            IdentityError: It proves nothing any more.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes a request."""

    tenant: TenantPolicy
    """What the policy grants, as read when the request came."""
    epoch: str
    """Digest of the policy that it was read from."""
    proofs: tuple[Proof, ...] = field(repr=False)
    """What showed it; all must go on to name this tenant."""
