"""Keys for signing: an elliptic-curve pair (P-256) as two PEM files, and what names a public key."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from eul_serve.errors import CapacityError, InputError
from eul_serve.format.digest import digest_bytes
from eul_serve.signing.envelope import installed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""Curves that Sigstore's signatures know: P-256, P-384 and P-521."""


def make_keys(private: Path, public: Path) -> None:
    """Write a fresh pair of keys; the private one is for its owner's eyes and has no password.

    Args:
        private: File of the private key; it must not be there yet.
        public: File of the public key; it must not be there yet.

    Raises:
        InputError: A file is there already.
        CapacityError: A file cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    texts = {
        private: key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        public: pem_of(key.public_key()),
    }
    for path in texts:
        if path.exists():
            raise InputError(f"key {str(path)!r}: is there already; name another file, keys are never written over")
    for path, mode in ((private, 0o600), (public, 0o644)):
        _write(path, texts[path], mode)


def load_public_key(data: bytes) -> EllipticCurvePublicKey:
    """Read a public key.

    Args:
        data: The key, PEM.

    Returns:
        The key.

    Raises:
        InputError: It is none on one of the curves; what was found is not shown, as it may be a private key.
    """
    with installed():
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise InputError("expected an elliptic-curve public key in PEM (P-256, P-384 or P-521); `eul keygen` makes one")
    return key


def key_fingerprint(public_key_file: Path) -> str:
    """Return what names a public key in logs and lists.

    Args:
        public_key_file: The file, PEM.

    Returns:
        `sha256:<hex>` of its SubjectPublicKeyInfo in DER.

    Raises:
        InputError: It cannot be read, or is no public key.
    """
    try:
        return digest_key(load_public_key(public_key_file.read_bytes()))
    except OSError as error:
        raise InputError(f"key {str(public_key_file)!r}: cannot read: {error.strerror}; name the public key") from error
    except InputError as error:
        raise InputError(f"key {str(public_key_file)!r}: {error}") from error


def digest_key(key: PublicKeyTypes) -> str:
    """Return `sha256:<hex>` of a public key's SubjectPublicKeyInfo in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return digest_bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def pem_of(key: PublicKeyTypes) -> bytes:
    """Return a public key as `make_keys` writes it: SubjectPublicKeyInfo in PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hint_of(key: EllipticCurvePublicKey) -> str:
    """Return what a signature calls its key: the sha256 of the public key in PEM, in hex."""
    return hashlib.sha256(pem_of(key)).hexdigest()


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise CapacityError(f"key {str(path)!r}: cannot write: {error.strerror}; name another file") from error
