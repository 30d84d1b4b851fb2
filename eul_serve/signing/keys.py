"""Keys for signing: an elliptic-curve pair (P-256) as two PEM files."""

from __future__ import annotations

import os
from pathlib import Path

from eul_serve.errors import CapacityError, InputError


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
        public: key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    }
    for path in texts:
        if path.exists():
            raise InputError(f"key {str(path)!r}: is there already; name another file, keys are never written over")
    for path, mode in ((private, 0o600), (public, 0o644)):
        _write(path, texts[path], mode)


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise CapacityError(f"key {str(path)!r}: cannot write: {error.strerror}; name another file") from error
