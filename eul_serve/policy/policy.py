"""The whole policy of a server: its tenants, and who holds which token."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from eul_serve.errors import IdentityError
from eul_serve.policy.jwt_rules import JwtRules
from eul_serve.policy.tenant import TenantPolicy

ANONYMOUS = "no bearer token; send `authorization: Bearer TOKEN`; `eul` takes it from EUL_TOKEN or --token-file"
UNKNOWN_CALLER = "unknown bearer token; ask your administrator for a new one"


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
    epoch: str
    """Digest of the content, `sha256:<hex>`: the same for the same rules, however they are written."""

    def identify(self, token: str | None) -> TenantPolicy:
        """Return the tenant that holds a bearer token.

        The time does not tell how much of a hash was right: all are compared, each in constant time.

        Args:
            token: The token without `Bearer `; None where the caller gave none.

        Returns:
            The tenant's policy.

        Raises:
            IdentityError: No token, or one that nobody holds.
        """
        if not token:
            raise IdentityError(ANONYMOUS)
        digest, holder = hash_token(token), None
        for known, tenant in self.tokens.items():
            if hmac.compare_digest(known, digest):
                holder = tenant
        if holder is None:
            raise IdentityError(UNKNOWN_CALLER)
        return self.tenants[holder]


def hash_token(token: str) -> str:
    """Return what a policy stores of a token: the 64 hex digits of its sha256."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
