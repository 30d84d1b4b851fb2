"""From what came with a call to its caller."""

from __future__ import annotations

from eul_serve.errors import IdentityError
from eul_serve.identity.caller import Caller, Credentials, Proof
from eul_serve.identity.keys import KeyRing
from eul_serve.identity.proofs import CertificateProof, TokenProof
from eul_serve.identity.signed import is_signed, verify
from eul_serve.policy import Policy
from eul_serve.policy.policy import ANONYMOUS


def identify(credentials: Credentials, policy: Policy, ring: KeyRing) -> Caller:
    """Return who calls.

    A token decides; a client certificate that belongs to a tenant decides where there is no token, and must belong to
    the same tenant where there is one: a stolen token is worth nothing over somebody else's connection.

    Args:
        credentials: What came with the call.
        policy: The policy in force.
        ring: The keys of the issuer of signed tokens.

    Returns:
        The caller.

    Raises:
        IdentityError: Nobody that the policy knows, or two at once.
    """
    proofs = tuple(_proofs(credentials, policy, ring))
    tenants = [proof.tenant_in(policy) for proof in proofs]
    if not tenants:
        raise IdentityError(ANONYMOUS)
    if len({tenant.name for tenant in tenants}) > 1:
        raise IdentityError("token and client certificate belong to different tenants; use one tenant's own")
    return Caller(tenant=tenants[0], epoch=policy.epoch, proofs=proofs)


def _proofs(credentials: Credentials, policy: Policy, ring: KeyRing) -> list[Proof]:
    found: list[Proof] = []
    token, names = credentials.token, credentials.names
    if token and policy.jwt is not None and is_signed(token):
        found.append(verify(token, policy.jwt, ring))
    elif token:
        found.append(TokenProof(token))
    if any(tenant.certificates & names for tenant in policy.tenants.values()):
        found.append(CertificateProof(names))
    return found
