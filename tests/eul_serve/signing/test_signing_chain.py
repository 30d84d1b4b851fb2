"""Bundles signed with certificates: valid now, up to the authority, under the name that the policy states."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from eul_serve.errors import InputError, RefusedError
from eul_serve.format import Bundle
from eul_serve.registry import open_registry
from eul_serve.signing import Signer, TrustedSigner, make_keys, sign_bundle, verify_bundle_signature
from eul_serve.signing.keys import digest_key
from tests.eul_serve.signing.authority import Authority

PlainBundle = Callable[..., Bundle]
URI = "spiffe://corp.example/ana"


@pytest.fixture(scope="module")
def bundle(plain_bundle: PlainBundle) -> Bundle:
    return plain_bundle("r1")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def believing(root: Authority, identity: str) -> list[TrustedSigner]:
    return [TrustedSigner(name="ana", certificates=root.file.read_bytes(), identity=identity)]


@pytest.mark.parametrize(
    ("alternative", "names", "others"),
    [
        ((), ["signer"], ["root", "Signer", "signer2"]),
        ((x509.UniformResourceIdentifier(URI),), [URI], ["signer", URI + "2"]),
        ((x509.DNSName("a.example"), x509.RFC822Name("a@b.example")), ["a.example", "a@b.example"], ["signer", "*"]),
    ],
)
def test_the_name_is_an_alternative_one_or_the_common_one_where_there_is_no_other(
    bundle: Bundle, root: Authority, alternative: tuple[x509.GeneralName, ...], names: list[str], others: list[str]
) -> None:
    signer = root.signer("signer", alternative=alternative)
    data = sign_bundle(bundle, signer)
    assert signer.certificate is not None
    key = x509.load_pem_x509_certificate(signer.certificate.read_bytes()).public_key()
    for name in names:
        found = verify_bundle_signature(data, bundle.manifest, believing(root, name))
        assert (found.name, found.fingerprint) == ("ana", digest_key(key))
    for name in others:
        with pytest.raises(RefusedError, match=f"made by .*, expected '{name.replace('*', '.')}'"):
            verify_bundle_signature(data, bundle.manifest, believing(root, name))


@pytest.mark.parametrize(("days", "message"), [((-3, -1), "expired"), ((1, 3), "not yet valid")])
def test_a_certificate_counts_while_it_is_valid(
    bundle: Bundle, root: Authority, days: tuple[int, int], message: str
) -> None:
    """The package itself looks at the moment from which the certificate is valid, so it would take an expired one."""
    data = sign_bundle(bundle, root.signer("late", days=days))
    with pytest.raises(RefusedError, match=message):
        verify_bundle_signature(data, bundle.manifest, believing(root, "late"))


def test_another_authority_of_the_same_name_is_not_believed(bundle: Bundle, root: Authority, tmp_path: Path) -> None:
    data = sign_bundle(bundle, Authority(tmp_path).signer("signer"))
    with pytest.raises(RefusedError, match="the signature does not hold"):
        verify_bundle_signature(data, bundle.manifest, believing(root, "signer"))


def test_a_key_is_no_certificate_and_a_certificate_no_key(bundle: Bundle, root: Authority, tmp_path: Path) -> None:
    make_keys(tmp_path / "key.pem", tmp_path / "key.pub")
    by_key = [TrustedSigner(name="ben", public_key=(tmp_path / "key.pub").read_bytes())]
    data = sign_bundle(bundle, Signer(private_key=tmp_path / "key.pem"))
    with pytest.raises(RefusedError, match="ana: made with a key, not with a certificate"):
        verify_bundle_signature(data, bundle.manifest, believing(root, "signer"))
    data = sign_bundle(bundle, root.signer("signer"))
    with pytest.raises(RefusedError, match="ben: made with another key"):
        verify_bundle_signature(data, bundle.manifest, by_key)
    both = [*by_key, *believing(root, "signer")]
    assert verify_bundle_signature(data, bundle.manifest, both).name == "ana"


def test_a_certificate_comes_with_those_above_it(bundle: Bundle, root: Authority) -> None:
    with pytest.raises(InputError, match="expected the ones above it too; give the chain"):
        sign_bundle(bundle, replace(root.signer("signer"), chain=()))


def test_one_between_the_signer_and_the_authority_is_taken_from_the_signature(
    bundle: Bundle, root: Authority, tmp_path: Path
) -> None:
    team = Authority(tmp_path, "team", above=root)
    data = sign_bundle(bundle, replace(team.signer("signer"), chain=(team.file, root.file)))
    assert verify_bundle_signature(data, bundle.manifest, believing(root, "signer")).name == "ana"
    alone = sign_bundle(bundle, replace(team.signer("signer"), chain=(root.file,)))
    with pytest.raises(RefusedError, match="unable to get local issuer certificate"):
        verify_bundle_signature(alone, bundle.manifest, believing(root, "signer"))


def test_every_byte_of_a_signature_with_certificates_counts(bundle: Bundle, root: Authority) -> None:
    data, signers = sign_bundle(bundle, root.signer("signer")), believing(root, "signer")
    verify_bundle_signature(data, bundle.manifest, signers)
    for where in range(len(data)):
        changed = bytearray(data)
        changed[where] ^= 1
        with pytest.raises(RefusedError):
            verify_bundle_signature(bytes(changed), bundle.manifest, signers)


def test_a_certificate_that_nobody_needs_is_refused(bundle: Bundle, root: Authority, tmp_path: Path) -> None:
    signer = root.signer("signer")
    data = sign_bundle(bundle, replace(signer, chain=(root.file, Authority(tmp_path, "other").file)))
    with pytest.raises(RefusedError, match="a certificate is there that does not lead to the authority"):
        verify_bundle_signature(data, bundle.manifest, believing(root, "signer"))


def changed_material(data: bytes, change: Callable[[list[dict[str, Any]]], object]) -> bytes:
    found = json.loads(data)
    change(found["verificationMaterial"]["x509CertificateChain"]["certificates"])
    return json.dumps(found, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.clear(),
        lambda found: found.reverse(),
        lambda found: found.pop(0),
        lambda found: found[0].update(rawBytes=""),
        lambda found: found[0].update(rawBytes=base64.b64encode(b"no certificate").decode()),
        lambda found: found.extend(found * 400),
    ],
)
def test_certificates_of_a_signature_may_be_anything_and_are_refused(
    bundle: Bundle, root: Authority, change: Callable[[list[dict[str, Any]]], object]
) -> None:
    data = changed_material(sign_bundle(bundle, root.signer("signer")), change)
    with pytest.raises(RefusedError):
        verify_bundle_signature(data, bundle.manifest, believing(root, "signer"))


def test_the_packages_own_tool_verifies_a_signature_with_certificates_and_signs_one(
    bundle: Bundle, root: Authority, tmp_path: Path
) -> None:
    registry = open_registry(str(tmp_path / "registry"))
    registry.publish(bundle, "poems")
    registry.fetch("poems", bundle.revision, folder := tmp_path / "fetched")
    signer = root.signer("signer")
    (tmp_path / "sig").write_bytes(sign_bundle(bundle, signer))
    tool = [sys.executable, "-m", "model_signing"]
    line = [*tool, "verify", "certificate", folder, "--signature", tmp_path / "sig", "--certificate_chain", root.file]
    assert subprocess.run([*map(str, line)], capture_output=True, timeout=120, check=False).returncode == 0
    line = [*tool, "sign", "certificate", folder, "--signature", tmp_path / "sig2", "--private_key", signer.private_key,
            "--signing_certificate", signer.certificate, "--certificate_chain", root.file]  # fmt: skip
    assert subprocess.run([*map(str, line)], capture_output=True, timeout=120, check=False).returncode == 0
    data = (tmp_path / "sig2").read_bytes()
    assert verify_bundle_signature(data, bundle.manifest, believing(root, "signer")).name == "ana"


def test_a_certificate_of_another_key_does_not_sign(bundle: Bundle, root: Authority) -> None:
    one, other = root.signer("one"), root.signer("other")
    with pytest.raises(InputError, match="does not match"):
        sign_bundle(bundle, replace(one, private_key=other.private_key))
    with pytest.raises(InputError, match="signing key"):
        sign_bundle(bundle, replace(one, certificate=one.private_key))
    key = rsa.generate_private_key(65537, 2048)
    one.private_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(InputError, match="expected an elliptic-curve private key"):
        sign_bundle(bundle, one)
