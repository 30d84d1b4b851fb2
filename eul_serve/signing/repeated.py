"""Whether a bundle has a key's signature already: each new one has other bytes, and a server looks at few of them."""

from __future__ import annotations

from collections.abc import Iterable

from eul_serve.errors import RefusedError
from eul_serve.format import Manifest
from eul_serve.signing.bundle_signature import verify_bundle_signature
from eul_serve.signing.directory import Signer
from eul_serve.signing.keys import pem_of
from eul_serve.signing.trusted import TrustedSigner


def signed_already(signatures: Iterable[bytes], manifest: Manifest, signer: Signer) -> bool:
    """Tell whether one of a bundle's signatures was made with a signer's key and holds.

    Args:
        signatures: Files of the bundle's signatures.
        manifest: The bundle's manifest.
        signer: Who has just signed it, so that the key can be used.

    Returns:
        Whether another one says nothing new. One with a certificate always does, as it may hold for longer.
    """
    if signer.certificate is not None:
        return False
    me = TrustedSigner(name="me", public_key=_public_key(signer))
    return any(_holds(data, manifest, me) for data in signatures)


def _public_key(signer: Signer) -> bytes:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return pem_of(load_pem_private_key(signer.private_key.read_bytes(), signer.secret).public_key())


def _holds(data: bytes, manifest: Manifest, signer: TrustedSigner) -> bool:
    try:
        verify_bundle_signature(data, manifest, [signer])
    except RefusedError:
        return False
    return True
