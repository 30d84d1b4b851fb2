"""Signing a directory: the Sigstore bundle that the package model-signing writes, over the digest of every file.

Other tools read it: `model_signing verify key DIR --signature FILE --public_key KEY` gives the same answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eul_serve.errors import CapacityError, InputError
from eul_serve.signing.envelope import MAX_SIGNATURE, check_form, installed, refusing, words

if TYPE_CHECKING:
    from model_signing.hashing import Config as HashingConfig

BAD_KEY = (OSError, ValueError, TypeError, AttributeError)
"""What model-signing raises over a file that is no elliptic-curve key; AttributeError over a key of another kind."""


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

    @property
    def secret(self) -> bytes | None:
        """The password as model-signing takes it: it asks for a text and can use bytes alone."""
        return self.password.encode() if self.password else None


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
    with installed():
        from model_signing import signing
    key = signer.private_key
    config = signing.Config().set_hashing_config(_hashing())
    try:
        if signer.certificate:
            config.use_certificate_signer(
                private_key=key, signing_certificate=signer.certificate, certificate_chain=signer.chain
            )
        else:
            config.use_elliptic_key_signer(private_key=key, password=signer.secret)
    except BAD_KEY as error:
        raise InputError(
            f"--key {str(key)!r}: expected an elliptic-curve private key in PEM, found: {words(error):.300}"
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
    with installed():
        from model_signing import verifying
    if not signature.is_file() or signature.stat().st_size > MAX_SIGNATURE:
        raise InputError(f"signature {str(signature)!r}: expected a file of at most 1 MiB; is it the right one?")
    config = verifying.Config().set_hashing_config(_hashing())
    try:
        if trust.public_key:
            config.use_elliptic_key_verifier(public_key=trust.public_key)
        else:
            config.use_certificate_verifier(certificate_chain=trust.certificates)
    except BAD_KEY as error:
        raise InputError(f"--public-key {str(trust.public_key)!r}: cannot be used: {words(error):.300}") from error
    with refusing(repr(str(folder))):
        check_form(json.loads(signature.read_bytes()))
        config.verify(folder, signature)


def _hashing() -> HashingConfig:
    from model_signing import hashing

    # Git's files count like all others: nothing in a signed directory goes unsigned.
    return hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
