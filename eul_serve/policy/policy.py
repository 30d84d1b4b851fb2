"""The whole policy of a server: its tenants, and who holds which token."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from eul_serve.errors import IdentityError
from eul_serve.policy.canary_rules import CanaryRules
from eul_serve.policy.jwt_rules import JwtRules
from eul_serve.policy.signers import Signers
from eul_serve.policy.tenant import TenantPolicy
from eul_serve.policy.trust_rules import TrustRules

ANONYMOUS = "no bearer token; send `authorization: Bearer TOKEN`; `eul` takes it from EUL_TOKEN or --token-file"
UNKNOWN_CALLER = "unknown bearer token; ask your administrator for a new one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """One administrator of servers; no tenant."""

    tokens: frozenset[str] = frozenset()
    """sha256 of each of its bearer tokens, 64 hex digits."""
    certificates: frozenset[str] = frozenset()
    """Alternative names of its client certificates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Every tenant's policy at one moment."""

    tenants: Mapping[str, TenantPolicy]
    """Tenants by name."""
    tokens: Mapping[str, str]
    """Tenant names by the sha256 of a bearer token, 64 hex digits."""
    derived_from: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint of the model that a served copy was made from, by its own: bundles of the first are admitted."""
    jwt: JwtRules | None = None
    """Which signed tokens are accepted; None accepts none."""
    admins: Mapping[str, Admin] = field(default_factory=dict)
    """Who may use the admin service, by name."""
    canaries: CanaryRules = field(default_factory=CanaryRules)
    """What serves where canaries fail."""
    signers: Signers = field(default_factory=Signers)
    """Who may sign which bundles."""
    trust: TrustRules = field(default_factory=TrustRules)
    """What is done with bundles that nobody signed."""
    epoch: str
    """Digest of the content, `sha256:<hex>`: the same for the same rules, however they are written."""

    def identify(self, token: str | None) -> TenantPolicy:
        """Return the tenant that holds a bearer token.

        Args:
            token: The token without `Bearer `; None where the caller gave none.

        Returns:
            The tenant's policy.

        Raises:
            IdentityError: No token, or one that nobody holds.
        """
        return self.tenants[_holder(token, self.tokens)]

    def identify_admin(self, token: str | None, names: frozenset[str]) -> str:
        """Return the administrator that holds a bearer token, or whose client certificate this is.

        Args:
            token: The token; None where the caller gave none.
            names: Alternative names of a verified client certificate.

        Returns:
            The administrator's name.

        Raises:
            IdentityError: None does; a tenant's token is nobody's here.
        """
        for name, admin in self.admins.items():
            if not token and admin.certificates & names:
                return name
        return _holder(token, {digest: name for name, admin in self.admins.items() for digest in admin.tokens})


def _holder(token: str | None, holders: Mapping[str, str]) -> str:
    """Return who holds a token; the time does not tell how much of a hash was right."""
    if not token:
        raise IdentityError(ANONYMOUS)
    digest, holder = hash_token(token), None
    for known, name in holders.items():
        if hmac.compare_digest(known, digest):
            holder = name
    if holder is None:
        raise IdentityError(UNKNOWN_CALLER)
    return holder


def hash_token(token: str) -> str:
    """Return what a policy stores of a token: the 64 hex digits of its sha256."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
