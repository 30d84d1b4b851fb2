"""Signing a bundle, and checking a signature by the bundle's manifest alone, before any file of it is fetched.

Other tools read it: `model_signing verify key DIR --signature FILE --public_key KEY` gives the same answer for a
directory with the manifest and the published files. The signature says nothing of the name that a bundle is published
under, nor of aliases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eul_serve.errors import InputError
from eul_serve.format import Bundle, Manifest
from eul_serve.signing.chain import check_chain, names_of
from eul_serve.signing.directory import BAD_KEY, Signer
from eul_serve.signing.envelope import installed, read_envelope, refusing, words
from eul_serve.signing.keys import digest_key, hint_of, load_public_key
from eul_serve.signing.signed_files import check_statement, make_payload
from eul_serve.signing.trusted import SignerIdentity, TrustedSigner

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from model_signing._signing.sign_sigstore_pb import Signature, Verifier
    from sigstore_models.bundle.v1 import VerificationMaterial


def sign_bundle(bundle: Bundle, signer: Signer) -> bytes:
    """Sign the manifest file and the published files of a bundle.

    Args:
        bundle: The bundle, checked by `read_bundle`; what is signed are the digests that were checked.
        signer: Who signs.

    Returns:
        The file of the signature, a Sigstore bundle.

    Raises:
        InputError: The key or a certificate cannot be used.
    """
    with installed():
        from model_signing._signing import sign_certificate, sign_ec_key
    key = signer.private_key
    if signer.certificate and not signer.chain:
        raise InputError(f"certificate {str(signer.certificate)!r}: expected the ones above it too; give the chain")
    try:
        if signer.certificate:
            made = sign_certificate.Signer(
                key, signer.certificate, signer.chain or (signer.certificate,)
            )  # it takes no empty chain
        else:
            made = sign_ec_key.Signer(key, signer.secret)
    except BAD_KEY as error:
        raise InputError(
            f"signing key {str(key)!r}: expected an elliptic-curve private key in PEM and, where there is one, its "
            f"certificate; found: {words(error):.300}"
        ) from error
    return str(made.sign(make_payload(bundle.manifest)).bundle.to_json()).encode()


def verify_bundle_signature(data: bytes, manifest: Manifest, signers: Sequence[TrustedSigner]) -> SignerIdentity:
    """Check a signature of a bundle whose files need not be there.

    Whoever fetches the files must compare them with the manifest, as a registry does: the signature holds for its
    digests.

    Args:
        data: The file of the signature.
        manifest: The bundle's manifest.
        signers: Whom to believe.

    Returns:
        Who signed.

    Raises:
        InputError: The package for signatures is not installed.
        RefusedError: Nobody who is believed signed it, or it is of other files.
    """
    with installed():
        import OpenSSL  # noqa: F401  # what model-signing needs for certificates and does not name
        from model_signing._signing.sign_sigstore_pb import Signature
        from sigstore_models.bundle.v1 import Bundle as SigstoreBundle
    with refusing(f"bundle {manifest.revision}"):
        envelope = read_envelope(data)
        try:
            signature = Signature(SigstoreBundle.from_dict(envelope))
        except ValueError as error:
            raise ValueError("expected a Sigstore bundle of version 0.3, as model-signing writes it") from error
        identity = _signed_by(signature, signers)
        check_statement(signature.bundle.dsse_envelope.payload, manifest)
    return identity


def _signed_by(signature: Signature, signers: Sequence[TrustedSigner]) -> SignerIdentity:
    """Return the first signer whose signature it is; `verify` also checks what kind of statement it is."""
    if len(signature.bundle.dsse_envelope.signatures) != 1:
        raise ValueError("expected one signature in the file")
    complaints = []
    for signer in signers:
        try:
            return _verified(signature, signer)
        except Exception as error:
            complaints.append(f"{signer.name}: {words(error)}")
    raise ValueError("; ".join(complaints) or "the policy names nobody who may sign this bundle")


def _verified(signature: Signature, signer: TrustedSigner) -> SignerIdentity:
    from cryptography.exceptions import InvalidSignature

    if signer.not_after and signer.ended:
        raise ValueError(f"not believed after {signer.not_after:%Y-%m-%dT%H:%M:%SZ}")
    material = signature.bundle.verification_material
    key, verifier = (_by_key if signer.public_key else _by_certificate)(material, signer)
    try:
        verifier.verify(signature)
    except InvalidSignature as error:
        raise ValueError("made with another key, or changed since") from error
    return SignerIdentity(name=signer.name, fingerprint=digest_key(key))


def _by_key(material: VerificationMaterial, signer: TrustedSigner) -> tuple[PublicKeyTypes, Verifier]:
    """Return the key of a signer and what verifies with it."""
    from model_signing._signing.sign_ec_key import Verifier as KeyVerifier

    key = load_public_key(signer.public_key)
    # Without a hint model-signing would go on and print a warning.
    if material.public_key is None or material.public_key.hint != hint_of(key):
        raise ValueError("made with another key")
    return key, KeyVerifier(_Held(signer.public_key))


def _by_certificate(material: VerificationMaterial, signer: TrustedSigner) -> tuple[PublicKeyTypes, Verifier]:
    """Return the key of a signer's certificate and what verifies with the authorities above it."""
    from model_signing._signing.sign_certificate import Verifier as ChainVerifier

    if material.x509_certificate_chain is None:
        raise ValueError("made with a key, not with a certificate")
    leaf = check_chain([one.raw_bytes for one in material.x509_certificate_chain.certificates], signer.certificates)
    if signer.identity not in (names := names_of(leaf)):
        raise ValueError(f"made by {', '.join(sorted(names)) or 'nobody'!r:.100}, expected {signer.identity!r:.100}")
    return leaf.public_key(), ChainVerifier([_Held(signer.certificates)])


@dataclass(frozen=True, slots=True)
class _Held:
    """Bytes where model-signing expects a path: the policy read them once, and the file may be another by now."""

    data: bytes
    """What the file held."""

    def read_bytes(self) -> bytes:
        """Return them."""
        return self.data
