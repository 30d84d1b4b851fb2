"""A certificate authority for tests: makes certificates of signers, valid now or not, under any name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from eul_serve.signing import Signer

DAY = timedelta(days=1)
PEM = serialization.Encoding.PEM


def make_certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool = False,
    alternative: Sequence[x509.GeneralName] = (),
    days: tuple[int, int] = (-1, 1),
) -> x509.Certificate:
    """Make a certificate that is valid between two days, counted from now."""

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    usage |= {"digital_signature": True, "key_cert_sign": authority, "crl_sign": authority}
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(alternative)), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


class Authority:
    """An authority and the files of what it issued."""

    def __init__(self, place: Path, name: str = "root", above: Authority | None = None) -> None:
        self.place, self.name = place, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        issuer = above or self
        made = make_certificate(name, self.key, issuer.name, issuer.key, authority=True, days=(-900, 900))
        self.file = place / f"{name}.crt"
        self.file.write_bytes(made.public_bytes(PEM))

    def signer(
        self, name: str, *, alternative: Sequence[x509.GeneralName] = (), days: tuple[int, int] = (-1, 1)
    ) -> Signer:
        """Issue a certificate and return who signs with it."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = make_certificate(name, key, self.name, self.key, alternative=alternative, days=days)
        certificate, private = self.place / f"{name}.crt", self.place / f"{name}.pem"
        certificate.write_bytes(made.public_bytes(PEM))
        private.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return Signer(private_key=private, certificate=certificate, chain=(self.file,))
