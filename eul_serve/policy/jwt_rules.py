"""Which signed tokens a policy accepts: the section `[jwt]`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from eul_serve.errors import InputError
from eul_serve.policy.section import Section

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a public key; with a shared secret every server could sign."""
_KEYS = ("issuer", "audience", "algorithms", "keys", "claim", "leeway_seconds")
MAX_LEEWAY = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRules:
    """What a signed token must be."""

    issuer: str
    """Its `iss`."""
    audience: str
    """What its `aud` must name."""
    algorithms: tuple[str, ...]
    """The only algorithms, whatever the token says."""
    keys: str
    """The issuer's public keys, a JWK set: path of a file, or https URL."""
    claim: str = "tenant"
    """The claim that has the tenant's name."""
    leeway_seconds: int = 30
    """By how much clocks may differ, in seconds."""


def read_jwt(section: Section) -> JwtRules | None:
    """Read the section.

    Args:
        section: The table `jwt`, empty where there is none.

    Returns:
        The rules; None where there is no such section.

    Raises:
        InputError: A key is missing or unknown, or a value is not acceptable; names it.
    """
    if not section.table:
        return None
    section.allow(*_KEYS)
    needed = {name: section.text(name) for name in ("issuer", "audience", "keys")}
    for name, value in needed.items():
        if not value:
            raise InputError(f"{section.where}: {name}: expected a text, found none")
    algorithms = section.texts("algorithms")
    if not algorithms or not set(algorithms) <= set(ALGORITHMS):
        raise InputError(f"{section.where}: algorithms: expected some of {', '.join(ALGORITHMS)}")
    leeway = section.number("leeway_seconds", 0, MAX_LEEWAY)
    return JwtRules(
        issuer=needed["issuer"] or "",
        audience=needed["audience"] or "",
        algorithms=algorithms,
        keys=section.parsed("keys", _address, needed["keys"] or ""),
        claim=section.text("claim") or "tenant",
        leeway_seconds=30 if leeway is None else leeway,
    )


def _address(text: str) -> str:
    """Return a path or URL; keys that came in plaintext could be anybody's."""
    if "://" not in text:
        return text
    url = urlsplit(text)
    loopback = url.scheme == "http" and url.hostname in ("127.0.0.1", "::1", "localhost")
    if not (url.scheme == "https" or loopback) or not url.hostname:
        raise InputError(f"{text[:100]!r}: expected a file or an https URL")
    return text
