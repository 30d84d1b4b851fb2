"""Signed directories: every byte counts, of the files and of the signature, with keys and with certificates."""

from __future__ import annotations

import base64
import json
import stat
import string
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from eul_serve.errors import CapacityError, EulError, InputError, RefusedError
from eul_serve.signing import Signer, Trust, make_keys, sign_directory, verify_directory


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path, Trust]:
    """A signed directory, its signature, and the key to trust."""
    make_keys(tmp_path / "key.pem", tmp_path / "key.pub")
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "statement.json").write_text('{"a": 1}\n')
    (folder / "inner" / "policy.toml").write_text("version = 1\n")
    sign_directory(folder, tmp_path / "sig", Signer(private_key=tmp_path / "key.pem"))
    return folder, tmp_path / "sig", Trust(public_key=tmp_path / "key.pub")


def test_what_is_signed_holds_also_under_another_name(signed: tuple[Path, Path, Trust]) -> None:
    folder, signature, trust = signed
    verify_directory(folder, signature, trust)
    verify_directory(folder.rename(folder.with_name("moved")), signature, trust)


def change_byte(folder: Path) -> None:
    (folder / "statement.json").write_text('{"a": 2}\n')


def add(folder: Path) -> None:
    (folder / "more").write_text("")


def add_of_git(folder: Path) -> None:
    (folder / ".gitignore").write_text("")


def take_out(folder: Path) -> None:
    (folder / "inner" / "policy.toml").unlink()


def rename(folder: Path) -> None:
    (folder / "statement.json").rename(folder / "statement2.json")


def link(folder: Path) -> None:
    (folder / "statement.json").rename(folder.parent / "elsewhere")
    (folder / "statement.json").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize("change", [change_byte, add, add_of_git, take_out, rename, link])
def test_every_change_of_the_files_is_refused(signed: tuple[Path, Path, Trust], change: Callable[[Path], None]) -> None:
    folder, signature, trust = signed
    change(folder)
    with pytest.raises(RefusedError, match="the signature does not hold"):
        verify_directory(folder, signature, trust)


def same_bytes(text: str) -> list[str]:
    """Return other texts that base64 decodes to the same bytes; there are none without padding."""
    bare = text.rstrip("=")
    alphabet = string.ascii_letters + string.digits + "+/"
    others = [bare[:-1] + last + text[len(bare) :] for last in alphabet if last != bare[-1]]
    return [other for other in others if base64.b64decode(other) == base64.b64decode(text)]


def test_every_byte_of_the_signature_counts(signed: tuple[Path, Path, Trust]) -> None:
    folder, signature, trust = signed
    data = signature.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        signature.write_bytes(changed)
        with pytest.raises(EulError):
            verify_directory(folder, signature, trust)
    # base64 drops the low bits before its padding: a decoder takes two forms for the same bytes.
    found = json.loads(data)
    for value in (found["dsseEnvelope"]["signatures"][0], found["dsseEnvelope"]):
        field = "sig" if "sig" in value else "payload"
        text = value[field]
        for other in same_bytes(text):
            value[field] = other
            signature.write_text(json.dumps(found))
            with pytest.raises(RefusedError, match=f"{field}: expected base64 in its one form"):
                verify_directory(folder, signature, trust)
        value[field] = text
    signature.write_text(json.dumps(found))
    verify_directory(folder, signature, trust)
    for broken in (b"", data[: len(data) // 2], b"{}", b"[]", b"\xff" * 9):
        signature.write_bytes(broken)
        with pytest.raises(RefusedError, match="the signature does not hold"):
            verify_directory(folder, signature, trust)


def test_another_key_is_not_believed(signed: tuple[Path, Path, Trust], tmp_path: Path) -> None:
    folder, signature, _ = signed
    make_keys(tmp_path / "other.pem", tmp_path / "other.pub")
    with pytest.raises(RefusedError):
        verify_directory(folder, signature, Trust(public_key=tmp_path / "other.pub"))


def test_the_packages_own_tool_reads_our_signature(signed: tuple[Path, Path, Trust]) -> None:
    folder, signature, trust = signed
    line = [sys.executable, "-m", "model_signing", "verify", "key", folder, "--signature", signature, "--public_key",
            trust.public_key]  # fmt: skip
    assert subprocess.run([*map(str, line)], capture_output=True).returncode == 0
    change_byte(folder)
    assert subprocess.run([*map(str, line)], capture_output=True).returncode != 0


def test_keys_are_private_and_never_written_over(tmp_path: Path) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    make_keys(private, public)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(InputError, match="is there already"):
        make_keys(tmp_path / "new.pem", public)
    assert not (tmp_path / "new.pem").exists()
    assert (private.read_bytes(), public.read_bytes()) == before
    with pytest.raises(CapacityError, match="cannot write"):
        make_keys(tmp_path / "none" / "key.pem", tmp_path / "none" / "key.pub")


def test_keys_and_signatures_that_cannot_be_used_are_named(signed: tuple[Path, Path, Trust], tmp_path: Path) -> None:
    folder, signature, trust = signed
    (tmp_path / "text").write_text("not a key")
    for key in (tmp_path / "text", tmp_path / "none"):
        with pytest.raises(InputError, match="--key.*expected an elliptic-curve private key"):  # noqa: RUF043
            sign_directory(folder, tmp_path / "sig2", Signer(private_key=key))
        with pytest.raises(InputError, match="--public-key"):
            verify_directory(folder, signature, Trust(public_key=key))
    for path in (tmp_path / "none", folder):
        with pytest.raises(InputError, match="expected a file of at most 1 MiB"):
            verify_directory(folder, path, trust)
    with pytest.raises(CapacityError, match="cannot write"):
        sign_directory(folder, tmp_path / "none" / "sig", Signer(private_key=tmp_path / "key.pem"))
    for given in ({}, {"public_key": signature, "certificates": (signature,)}):
        with pytest.raises(InputError, match="give one of the two"):
            Trust(**given)  # type: ignore[arg-type]


def certificate(name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey,
                authority: bool) -> x509.Certificate:  # fmt: skip
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    usage = {
        "digital_signature": True, "content_commitment": False, "key_encipherment": False, "data_encipherment": False,
        "key_agreement": False, "key_cert_sign": authority, "crl_sign": authority, "encipher_only": False,
        "decipher_only": False,
    }  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())


def test_certificates_are_believed_up_to_their_root_alone(signed: tuple[Path, Path, Trust], tmp_path: Path) -> None:
    folder, signature, trust = signed
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "signer", "other")}
    made = {
        "root": certificate("root", keys["root"], "root", keys["root"], True),
        "signer": certificate("signer", keys["signer"], "root", keys["root"], False),
        "other": certificate("root", keys["other"], "root", keys["other"], True),
    }
    for name, found in made.items():
        (tmp_path / f"{name}.crt").write_bytes(found.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "signer.pem").write_bytes(
        keys["signer"].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    signer = Signer(
        private_key=tmp_path / "signer.pem", certificate=tmp_path / "signer.crt", chain=(tmp_path / "root.crt",)
    )
    sign_directory(folder, signature, signer)
    verify_directory(folder, signature, Trust(certificates=(tmp_path / "root.crt",)))
    with pytest.raises(RefusedError):
        verify_directory(folder, signature, Trust(certificates=(tmp_path / "other.crt",)))
    with pytest.raises(RefusedError):
        verify_directory(folder, signature, trust)
    change_byte(folder)
    with pytest.raises(RefusedError):
        verify_directory(folder, signature, Trust(certificates=(tmp_path / "root.crt",)))
