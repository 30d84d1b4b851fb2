"""Signed tokens (JWT): signature, issuer, audience, times and tenant, with the algorithms that the policy pins."""

from __future__ import annotations

import jwt

from eul_serve.errors import IdentityError
from eul_serve.identity.keys import KeyRing
from eul_serve.identity.proofs import JwtProof
from eul_serve.policy import JwtRules
from eul_serve.policy.policy import UNKNOWN_CALLER

MAX_CHARACTERS = 8192
"""Longest token; no issuer's is longer, and parsing costs."""


def is_signed(token: str) -> bool:
    """Return whether a token has the form of a JWT: three parts."""
    return token.count(".") == 2


def verify(token: str, rules: JwtRules, ring: KeyRing) -> JwtProof:
    """Return what a signed token proves.

    Args:
        token: The token.
        rules: The policy's rules.
        ring: The issuer's keys.

    Returns:
        The proof.

    Raises:
        IdentityError: It is not in order. Only whoever has a token of the issuer is told that it has expired.
    """
    if len(token) > MAX_CHARACTERS:
        raise IdentityError(UNKNOWN_CALLER)
    try:
        held = ring.get(jwt.get_unverified_header(token).get("kid"))
        if held is None:
            raise IdentityError(UNKNOWN_CALLER)
        claims = jwt.decode(
            token,
            held[1].key,
            algorithms=list(rules.algorithms),
            audience=rules.audience,
            issuer=rules.issuer,
            leeway=rules.leeway_seconds,
            options={"require": ["exp", "aud", "iss"]},
        )
    except jwt.ExpiredSignatureError as error:
        raise IdentityError("the bearer token has expired; get a new one") from error
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise IdentityError(UNKNOWN_CALLER) from error
    tenant = claims.get(rules.claim)
    if not isinstance(tenant, str):
        raise IdentityError(UNKNOWN_CALLER)
    return JwtProof(tenant=tenant, key_id=held[0], rules=rules, keys=ring)
