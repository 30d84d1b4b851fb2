"""Certificates of a signer: whether they lead to an authority now, and whom they name.

A signature has no trusted time of its own, as nobody is asked over the network. So a certificate counts while it is
valid, and not because it was valid when somebody signed. Nobody is asked whether it was revoked either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eul_serve.errors import InputError
from eul_serve.signing.envelope import installed

if TYPE_CHECKING:
    from cryptography import x509


def load_authorities(data: bytes) -> list[x509.Certificate]:
    """Read certificates.

    Args:
        data: One or more of them, PEM.

    Returns:
        The certificates.

    Raises:
        InputError: There are none.
    """
    with installed():
        from cryptography import x509
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise InputError("expected X.509 certificates in PEM") from error


def check_chain(found: Sequence[bytes], authorities: bytes) -> x509.Certificate:
    """Check that certificates lead from a signer's to an authority, all of them valid now and each of them needed.

    Args:
        found: The certificates of a signature, DER, the signer's first.
        authorities: Certificates to believe, PEM.

    Returns:
        The signer's certificate.

    Raises:
        ValueError: They do not, or one is there that is not needed.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from OpenSSL import crypto

    store = crypto.X509Store()
    for authority in load_authorities(authorities):
        store.add_cert(crypto.X509.from_cryptography(authority))
    leaf, *others = [x509.load_der_x509_certificate(data) for data in found]
    context = crypto.X509StoreContext(
        store, crypto.X509.from_cryptography(leaf), [crypto.X509.from_cryptography(one) for one in others]
    )
    try:
        verified = [one.to_cryptography().public_bytes(Encoding.DER) for one in context.get_verified_chain()]
    except crypto.X509StoreContextError as error:
        raise ValueError(f"the certificate of {subject(leaf)}: {error}") from error
    # No signature covers a certificate that nobody needs, so its bytes could be anything.
    if len(set(found)) != len(found) or not set(found) <= set(verified):
        raise ValueError("a certificate is there that does not lead to the authority; sign with the chain alone")
    return leaf


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return whom a certificate names: its alternative names (URI, DNS, mail), or its common name where it has none.

    Args:
        certificate: The certificate.

    Returns:
        The names.
    """
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset(str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    kinds = (x509.UniformResourceIdentifier, x509.DNSName, x509.RFC822Name)
    return frozenset(name for kind in kinds for name in found.get_values_for_type(kind))


def subject(certificate: x509.Certificate) -> str:
    """Return the subject of a certificate for a message."""
    return repr(certificate.subject.rfc4514_string())[:100]
