"""Signing a directory: the Sigstore bundle that the package model-signing writes, over the digest of every file.

Other tools read it: `model_signing verify key DIR --signature FILE --public_key KEY` gives the same answer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eul_serve.errors import CapacityError, InputError, RefusedError

if TYPE_CHECKING:
    from model_signing.hashing import Config as HashingConfig

MAX_SIGNATURE = 1 << 20
"""Most bytes of a signature file."""
BASE64 = ("payload", "sig", "rawBytes")
"""Fields of a Sigstore bundle that hold bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom a verifier believes; one of the two."""

    public_key: Path | None = None
    """File of the signer's public key."""
    certificates: tuple[Path, ...] = ()
    """Files of certificates that lead from the signer's to one that is believed."""

    def __post_init__(self) -> None:
        if bool(self.public_key) == bool(self.certificates):
            raise InputError("signature: expected a public key or a chain of certificates; give one of the two")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who signs."""

    private_key: Path
    """File of the private key."""
    password: str | None = None
    """Its password, if it has one."""
    certificate: Path | None = None
    """File of the signer's certificate; without one the key alone speaks."""
    chain: tuple[Path, ...] = ()
    """Files of the certificates above it."""


def sign_directory(folder: Path, signature: Path, signer: Signer) -> None:
    """Sign all files of a directory.

    Args:
        folder: The directory.
        signature: File of the signature, outside of the directory.
        signer: Who signs.

    Raises:
        InputError: The key or a certificate cannot be used.
        CapacityError: The signature cannot be written.
    """
    with _installed():
        from model_signing import signing
    key = signer.private_key
    config = signing.Config().set_hashing_config(_hashing())
    try:
        if signer.certificate:
            config.use_certificate_signer(
                private_key=key, signing_certificate=signer.certificate, certificate_chain=signer.chain
            )
        else:
            config.use_elliptic_key_signer(private_key=key, password=signer.password)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--key {str(key)!r}: expected an elliptic-curve private key in PEM, found: {error}"
        ) from error
    try:
        config.sign(folder, signature)
    except OSError as error:
        raise CapacityError(f"signature {str(signature)!r}: cannot write: {error.strerror}; name another") from error


def verify_directory(folder: Path, signature: Path, trust: Trust) -> None:
    """Check that a directory has the signed files, byte for byte, and no others.

    Args:
        folder: The directory.
        signature: File of the signature.
        trust: Whom to believe.

    Raises:
        InputError: The signature, key or certificate cannot be read.
        RefusedError: The signature is not of that signer, or a file differs, is missing or is one too many.
    """
    with _installed():
        from model_signing import verifying
    if not signature.is_file() or signature.stat().st_size > MAX_SIGNATURE:
        raise InputError(f"signature {str(signature)!r}: expected a file of at most 1 MiB; is it the right one?")
    config = verifying.Config().set_hashing_config(_hashing())
    try:
        if trust.public_key:
            config.use_elliptic_key_verifier(public_key=trust.public_key)
        else:
            config.use_certificate_verifier(certificate_chain=trust.certificates)
    except (OSError, ValueError) as error:
        raise InputError(f"--public-key {str(trust.public_key)!r}: cannot be used: {error}") from error
    with _refusing(folder):
        _check_form(json.loads(signature.read_bytes()))
        config.verify(folder, signature)


def _check_form(part: object, name: str = "") -> None:
    """Refuse base64 with bits that its decoder drops: no two files are the same signature."""
    if isinstance(part, dict):
        for key, inner in part.items():
            _check_form(inner, key)
    elif isinstance(part, list):
        for inner in part:
            _check_form(inner, name)
    elif name in BASE64 and isinstance(part, str) and base64.b64encode(base64.b64decode(part)).decode() != part:
        raise ValueError(f"{name}: expected base64 in its one form")


@contextmanager
def _installed() -> Iterator[None]:
    """Say in words that an optional package is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"signatures need the package {error.name}: pip install 'eul-serve[sign]'") from error


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    """Turn whatever goes wrong into a refusal: the file comes from outside, and anything may be in it."""
    try:
        yield
    except Exception as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RefusedError(f"{str(folder)!r}: the signature does not hold: {words:.300}; do not use it") from error


def _hashing() -> HashingConfig:
    from model_signing import hashing

    # Git's files count like all others: nothing in a signed directory goes unsigned.
    return hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
