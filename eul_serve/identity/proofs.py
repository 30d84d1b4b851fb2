"""The kinds of proof."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from eul_serve.errors import IdentityError
from eul_serve.policy import JwtRules, Policy, TenantPolicy


@dataclass(frozen=True, slots=True)
class TokenProof:
    """A bearer token whose hash the policy stores."""

    token: str = field(repr=False)
    """The token."""

    def tenant_in(self, policy: Policy) -> TenantPolicy:
        """Return the tenant that holds the token."""
        return policy.identify(self.token)


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtProof:
    """A signed token that was found in order."""

    tenant: str
    """The tenant that it names."""
    key_id: str
    """Id of the key that signed it."""
    rules: JwtRules
    """The rules that it was found in order by."""
    keys: Container[str]
    """Ids of the issuer's keys, as they are now."""

    def tenant_in(self, policy: Policy) -> TenantPolicy:
        """Return the tenant, where the rules are the same and the signer is still one."""
        if policy.jwt != self.rules or self.key_id not in self.keys or self.tenant not in policy.tenants:
            raise IdentityError("the signer of this token, or its tenant, is not accepted any more; get a new one")
        return policy.tenants[self.tenant]


@dataclass(frozen=True, slots=True)
class CertificateProof:
    """A client certificate that the transport has verified."""

    names: frozenset[str]
    """Its alternative names."""

    def tenant_in(self, policy: Policy) -> TenantPolicy:
        """Return the one tenant that the certificate belongs to."""
        found = [tenant for tenant in policy.tenants.values() if tenant.certificates & self.names]
        if len(found) != 1:
            raise IdentityError("no tenant has this client certificate; ask your administrator for its name")
        return found[0]
