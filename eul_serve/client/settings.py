"""How to reach a server, and how often to try."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from eul_serve.address import Address
from eul_serve.errors import InputError

_TOKEN = re.compile(r"[!-~]+")
MOST_ATTEMPTS = 5
"""gRPC makes no more, whatever it is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a call is tried before it fails; nothing is tried again once an answer has begun.

    Calls that a server refuses for the moment (RESOURCE_EXHAUSTED, UNAVAILABLE) are tried again, after the time that
    the server names, else after a random one that doubles. All calls of a client share a budget, so that clients do
    not answer a server's trouble with more calls: each failure takes one, each success gives `ratio` back, and below
    half of the budget nothing is tried again (gRPC's retry throttling).
    """

    attempts: int = 4
    """Attempts in all, 1 to 5; 1 never tries again."""
    first_seconds: float = 0.2
    """Longest wait before the second attempt in seconds; doubles with each."""
    last_seconds: float = 5.0
    """Longest wait before any attempt in seconds."""
    budget: int = 10
    """Failures that a client may have at once, 1 to 1000."""
    ratio: float = 0.1
    """What a success gives back, above 0 to 1."""

    def __post_init__(self) -> None:
        for name, least, most in (("attempts", 1, MOST_ATTEMPTS), ("budget", 1, 1000)):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"retries: {name}: expected {least} to {most}, found {getattr(self, name)}")
        if not 0 < self.first_seconds <= self.last_seconds <= 3600:
            raise InputError(
                f"retries: seconds: expected above 0, the first at most the last, and at most 3600, found "
                f"{self.first_seconds:g} and {self.last_seconds:g}"
            )
        if not 0 < self.ratio <= 1:
            raise InputError(f"retries: ratio: expected above 0 to 1, found {self.ratio:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to reach a server."""

    address: str = "127.0.0.1:8500"
    """`HOST:PORT`."""
    token: str | None = field(default=None, repr=False)
    """Bearer token; only health works without one."""
    tls: bool = False
    """Whether to encrypt, trusting the system's authorities."""
    ca_certificate: Path | None = None
    """PEM of the authority to trust instead; turns TLS on."""
    certificate: Path | None = None
    """PEM of our own certificate chain, for servers that know their clients by it; needs `key`."""
    key: Path | None = None
    """PEM of that certificate's private key."""
    insecure: bool = False
    """Whether a token may go to another machine in plaintext."""
    timeout_seconds: float = 300.0
    """Longest time of one call in seconds."""
    retries: Retries = field(default_factory=Retries)
    """How often to try."""

    def __post_init__(self) -> None:
        if self.token and not _TOKEN.fullmatch(self.token):  # not shown, as it may be a slip in a real one
            raise InputError("token: expected printable ASCII without spaces, as `eul token` makes them")
        if (self.certificate is None) != (self.key is None):
            raise InputError("--client-cert and --client-key: give both, or neither")
        if self.certificate is not None and not self.encrypts:
            raise InputError("--client-cert: a certificate needs TLS; use --tls or --ca-cert")
        plaintext = not self.encrypts
        if plaintext and self.token and not self.insecure and not Address.parse(self.address).is_loopback:
            raise InputError(
                f"server {self.address!r}: the token would leave this machine in plaintext; use --tls or --ca-cert, or "
                "pass --insecure where something else encrypts"
            )

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call: the token, where there is one."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    @property
    def encrypts(self) -> bool:
        """Whether the connection is encrypted."""
        return self.tls or self.ca_certificate is not None
