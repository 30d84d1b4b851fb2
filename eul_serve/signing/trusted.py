"""A signer that a server believes, and whom it found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from eul_serve.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedSigner:
    """A signer to believe: by a public key, or by certificates and the name that the signer's own must have."""

    name: str
    """What the policy calls the signer."""
    public_key: bytes = b""
    """The public key, PEM; empty for certificates."""
    certificates: bytes = b""
    """The authorities' certificates, PEM, one after the other; empty for a key."""
    identity: str = ""
    """An alternative name of the signer's certificate, or its common name where it has no alternative ones."""
    not_after: datetime | None = None
    """When the signer stops to be believed, in UTC; None for never."""

    @property
    def ended(self) -> bool:
        """Whether the signer's time is over."""
        return self.not_after is not None and datetime.now(UTC) > self.not_after

    def __post_init__(self) -> None:
        if bool(self.public_key) == bool(self.certificates):
            raise InputError(f"signer {self.name!r:.80}: expected a public key or certificates; give one of the two")
        if bool(self.certificates) != bool(self.identity):
            raise InputError(f"signer {self.name!r:.80}: certificates and identity belong together; give both")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerIdentity:
    """Who signed."""

    name: str
    """What the policy calls the signer."""
    fingerprint: str
    """Digest of the key that signed, `sha256:<hex>` of its SubjectPublicKeyInfo in DER."""
