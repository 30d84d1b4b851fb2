"""Signatures of bundles: over exactly the published files, readable by others, and checked without the files."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eul_serve.errors import InputError, RefusedError
from eul_serve.format import Bundle, Manifest
from eul_serve.registry import open_registry
from eul_serve.signing import (
    Signer,
    SignerIdentity,
    TrustedSigner,
    key_fingerprint,
    make_keys,
    sign_bundle,
    sign_directory,
    verify_bundle_signature,
)
from eul_serve.signing.keys import hint_of

PlainBundle = Callable[..., Bundle]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the keys of two signers."""
    place = tmp_path_factory.mktemp("keys")
    for name in ("ana", "ben"):
        make_keys(place / f"{name}.pem", place / f"{name}.pub")
    return place


@pytest.fixture(scope="module")
def bundle(plain_bundle: PlainBundle) -> Bundle:
    return plain_bundle("r1", "r2", statistics=True)


@pytest.fixture(scope="module")
def signature(bundle: Bundle, place: Path) -> bytes:
    return sign_bundle(bundle, Signer(private_key=place / "ana.pem"))


def trusted(place: Path, name: str, **settings: Any) -> TrustedSigner:
    return TrustedSigner(name=name, public_key=(place / f"{name}.pub").read_bytes(), **settings)


def fetched(bundle: Bundle, place: Path) -> Path:
    """The directory that a registry writes: the manifest and the published files, no statistics."""
    registry = open_registry(str(place / "registry"))
    registry.publish(bundle, "poems")
    registry.fetch("poems", bundle.revision, place / "fetched")
    return place / "fetched"


def stock(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the package's own command line."""
    line = [sys.executable, "-m", "model_signing", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


def test_the_signer_is_named_with_the_digest_of_its_key(bundle: Bundle, place: Path, signature: bytes) -> None:
    both = [trusted(place, "ben"), trusted(place, "ana")]
    found = verify_bundle_signature(signature, bundle.manifest, both)
    assert found == SignerIdentity(name="ana", fingerprint=key_fingerprint(place / "ana.pub"))
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", place / "ana.pub", "-outform", "DER"], capture_output=True, check=True
    ).stdout
    state = hashes.Hash(hashes.SHA256())
    state.update(der)
    assert found.fingerprint == f"sha256:{state.finalize().hex()}"


def test_the_packages_own_tool_verifies_what_a_registry_fetches(
    bundle: Bundle, place: Path, signature: bytes, tmp_path: Path
) -> None:
    folder = fetched(bundle, tmp_path)
    (tmp_path / "sig").write_bytes(signature)
    line = ("verify", "key", folder, "--signature", tmp_path / "sig", "--public_key", place / "ana.pub")
    assert (found := stock(*line)).returncode == 0, found.stderr
    (folder / "README.md").write_bytes(b"# Another card\n")
    assert stock(*line).returncode != 0


def test_what_the_packages_own_tool_signs_is_believed(bundle: Bundle, place: Path, tmp_path: Path) -> None:
    folder = fetched(bundle, tmp_path)
    line = ("sign", "key", folder, "--signature", tmp_path / "sig", "--private_key", place / "ana.pem")
    assert (found := stock(*line)).returncode == 0, found.stderr
    data = (tmp_path / "sig").read_bytes()
    assert verify_bundle_signature(data, bundle.manifest, [trusted(place, "ana")]).name == "ana"
    line = ("sign", "key", folder, "--signature", folder / "model.sig", "--private_key", place / "ana.pem")
    assert stock(*line).returncode == 0
    data = (folder / "model.sig").read_bytes()
    assert verify_bundle_signature(data, bundle.manifest, [trusted(place, "ana")]).name == "ana"


def test_statistics_are_not_signed(bundle: Bundle, place: Path, signature: bytes, tmp_path: Path) -> None:
    assert (bundle.path / "fusion.safetensors").exists()
    found = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    names = [resource["name"] for resource in found["predicate"]["resources"]]
    assert sorted(names) == sorted([*bundle.manifest.files, "manifest.json"])
    sign_directory(bundle.path, tmp_path / "sig", Signer(private_key=place / "ana.pem"))
    with pytest.raises(RefusedError, match=r"'fusion.safetensors' is signed and not of the bundle"):
        verify_bundle_signature((tmp_path / "sig").read_bytes(), bundle.manifest, [trusted(place, "ana")])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_byte_in_a_signature_is_refused(
    bundle: Bundle, place: Path, signature: bytes, data: st.DataObject
) -> None:
    changed = bytearray(signature)
    where = data.draw(st.integers(0, len(signature) - 1))
    changed[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RefusedError, match="the signature does not hold"):
        verify_bundle_signature(bytes(changed), bundle.manifest, [trusted(place, "ana")])


def test_every_byte_of_a_signature_counts(bundle: Bundle, place: Path, signature: bytes) -> None:
    signers = [trusted(place, "ana")]
    for where in range(len(signature)):
        changed = bytearray(signature)
        changed[where] ^= 1
        with pytest.raises(RefusedError):
            verify_bundle_signature(bytes(changed), bundle.manifest, signers)
    for other in (signature + b"\n", b" " + signature, signature.replace(b'":"', b'": "', 1), signature * 2):
        with pytest.raises(RefusedError):
            verify_bundle_signature(other, bundle.manifest, signers)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_digest_in_the_manifest_is_refused(
    bundle: Bundle, place: Path, signature: bytes, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(bundle.manifest.files)))
    digest = data.draw(st.binary(min_size=32, max_size=32)).hex()
    entry = bundle.manifest.files[name]
    if entry.sha256 == f"sha256:{digest}":
        return
    files = bundle.manifest.files | {name: replace(entry, sha256=f"sha256:{digest}")}
    with pytest.raises(RefusedError, match="it is of another bundle"):
        verify_bundle_signature(signature, replace(bundle.manifest, files=files), [trusted(place, "ana")])


def test_the_right_key_over_another_bundle_is_refused(plain_bundle: PlainBundle, place: Path, signature: bytes) -> None:
    other = plain_bundle("r1", seed=5)
    with pytest.raises(RefusedError, match=f"this is {other.revision}"):
        verify_bundle_signature(signature, other.manifest, [trusted(place, "ana")])


def test_a_key_that_is_not_believed_is_refused(bundle: Bundle, place: Path, signature: bytes) -> None:
    with pytest.raises(RefusedError, match="ben: made with another key"):
        verify_bundle_signature(signature, bundle.manifest, [trusted(place, "ben")])
    with pytest.raises(RefusedError, match="the policy names nobody who may sign this bundle"):
        verify_bundle_signature(signature, bundle.manifest, [])


def test_a_signer_is_believed_until_its_last_moment(bundle: Bundle, place: Path, signature: bytes) -> None:
    now = datetime.now(UTC)
    later = trusted(place, "ana", not_after=now + timedelta(days=1))
    assert verify_bundle_signature(signature, bundle.manifest, [later]).name == "ana"
    over = trusted(place, "ana", not_after=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    with pytest.raises(RefusedError, match="ana: not believed after 2026-01-02T03:04:05Z"):
        verify_bundle_signature(signature, bundle.manifest, [over])


def test_a_key_is_rotated_without_a_gap(bundle: Bundle, place: Path, signature: bytes) -> None:
    """Both keys are believed for a while, bundles are signed again, and the old key goes."""
    new = sign_bundle(bundle, Signer(private_key=place / "ben.pem"))
    both = [trusted(place, "ana"), trusted(place, "ben")]
    assert [verify_bundle_signature(one, bundle.manifest, both).name for one in (signature, new)] == ["ana", "ben"]
    assert verify_bundle_signature(new, bundle.manifest, both[1:]).name == "ben"
    with pytest.raises(RefusedError):
        verify_bundle_signature(signature, bundle.manifest, both[1:])


def resigned(place: Path, change: Callable[[dict[str, Any]], object], signature: bytes) -> bytes:
    """Change the statement of a signature and sign it with the right key, as a careless signer could."""
    found = json.loads(signature)
    statement = json.loads(base64.b64decode(found["dsseEnvelope"]["payload"]))
    change(statement)
    state = hashes.Hash(hashes.SHA256())
    for resource in statement["predicate"]["resources"]:
        state.update(bytes.fromhex(resource["digest"]))
    statement["subject"][0]["digest"]["sha256"] = state.finalize().hex()
    payload = json.dumps(statement).encode()
    kind = b"application/vnd.in-toto+json"
    key = serialization.load_pem_private_key((place / "ana.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    made = key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload), ec.ECDSA(hashes.SHA256()))
    found["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    found["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(made).decode()
    return json.dumps(found, separators=(",", ":")).encode()


def resources(statement: dict[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = statement["predicate"]["resources"]
    return found


def one_more(statement: dict[str, Any]) -> None:
    resources(statement).append({"algorithm": "sha256", "digest": "0" * 64, "name": "zzz"})


def one_less(statement: dict[str, Any]) -> None:
    resources(statement).pop(0)


def twice(statement: dict[str, Any]) -> None:
    resources(statement).append(resources(statement)[0])


def twice_by_another_path(statement: dict[str, Any]) -> None:
    resources(statement).append({**resources(statement)[0], "name": "./" + resources(statement)[0]["name"]})


def other_digest(statement: dict[str, Any]) -> None:
    resources(statement)[0]["digest"] = "0" * 64


def other_algorithm(statement: dict[str, Any]) -> None:
    resources(statement)[0]["algorithm"] = "blake3"


def no_manifest(statement: dict[str, Any]) -> None:
    statement["predicate"]["resources"] = [one for one in resources(statement) if one["name"] != "manifest.json"]


def old_kind(statement: dict[str, Any]) -> None:
    statement["predicateType"] = "https://model_signing/Digests/v0.1"
    statement["subject"] = [{"name": one["name"], "digest": {"sha256": one["digest"]}} for one in resources(statement)]


def by_shards(statement: dict[str, Any]) -> None:
    statement["predicate"]["serialization"] |= {"method": "shards", "shard_size": 1000}
    for one in resources(statement):
        one["name"] += ":0:1000"


def by_another_hash(statement: dict[str, Any]) -> None:
    statement["predicate"]["serialization"]["hash_type"] = "blake2b"


def no_predicate(statement: dict[str, Any]) -> None:
    statement["predicate"] = {"resources": []}


def nothing(_: dict[str, Any]) -> None:
    """Leave it: what is signed again holds again."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_more, "'zzz' is signed and not of the bundle"),
        (one_less, "'README.md' is not signed"),
        (twice, "'README.md': signed twice"),
        (twice_by_another_path, "'./README.md' is signed and not of the bundle"),
        (other_digest, "'README.md' differs from what was signed"),
        (other_algorithm, "'README.md': signed twice, or by another digest than sha256"),
        (no_manifest, "it is of another bundle: no manifest was signed"),
        (old_kind, ""),
        (by_shards, "lists other things than the sha256 of files"),
        (by_another_hash, "lists other things than the sha256 of files"),
        (no_predicate, ""),
    ],
)
def test_a_signed_statement_of_other_files_is_refused(
    bundle: Bundle, place: Path, signature: bytes, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    signers = [trusted(place, "ana")]
    verify_bundle_signature(resigned(place, nothing, signature), bundle.manifest, signers)
    with pytest.raises(RefusedError) as caught:
        verify_bundle_signature(resigned(place, change, signature), bundle.manifest, signers)
    assert message in str(caught.value)
    assert bundle.revision in str(caught.value)


def in_form(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Change the JSON of a signature and write it as it is written."""

    def changed(signature: bytes) -> bytes:
        found = json.loads(signature)
        change(found)
        return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()

    return changed


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda _: b"", "expected JSON"),
    "a number": (lambda _: b"1", "expected a JSON object, found int"),
    "a list": (lambda _: b"[]", "expected a JSON object, found list"),
    "an empty object": (lambda _: b"{}", "expected a Sigstore bundle"),
    "no text": (lambda _: b"\xff\xfe", "expected JSON"),
    "huge": (lambda data: data + b" " * (1 << 20), "at most 1 MiB"),
    "deep": (lambda _: b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "expected JSON"),
    "a huge number": (lambda _: b'{"a":' + b"9" * 100_000 + b"}", "expected JSON"),
    "a lone surrogate": (lambda _: b'{"mediaType":"\\ud800"}', "signature does not hold"),
    "a key twice": (lambda data: data.replace(b"{", b'{"mediaType":"x",', 1), "a key occurs twice"),
    "spaces": (lambda data: json.dumps(json.loads(data)).encode(), "expected JSON without spaces"),
    "another field": (in_form(lambda found: found.update(more=1)), "expected a Sigstore bundle"),
    "another kind": (in_form(lambda found: found.update(mediaType="text/plain")), "expected a Sigstore bundle"),
    "no hint": (in_form(lambda found: found["verificationMaterial"]["publicKey"].update(hint="")), "another key"),
    "no material": (in_form(lambda found: found.pop("verificationMaterial")), "expected a Sigstore bundle"),
    "a chain without certificates": (
        in_form(lambda found: found.update(verificationMaterial={"x509CertificateChain": {"certificates": []},
                                                                 "tlogEntries": []})),
        "made with another key",
    ),
    "no signature": (in_form(lambda found: found["dsseEnvelope"].update(signatures=[])), "expected one signature"),
    "two signatures": (
        in_form(lambda found: found["dsseEnvelope"].update(signatures=found["dsseEnvelope"]["signatures"] * 2)),
        "expected one signature",
    ),
    "another payload": (
        in_form(lambda found: found["dsseEnvelope"].update(payload=base64.b64encode(b"{}").decode())),
        "made with another key, or changed since",
    ),
    "another kind of payload": (in_form(lambda found: found["dsseEnvelope"].update(payloadType="x")), "but got x"),
    "a number for the payload": (in_form(lambda found: found["dsseEnvelope"].update(payload=1)), "expected a Sigstore"),
    "a message instead": (
        in_form(lambda found: (found.pop("dsseEnvelope"), found.update(messageSignature={"signature": "AA=="}))),
        "signature does not hold",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_whatever_else_the_file_holds_is_refused_in_words(
    bundle: Bundle, place: Path, signature: bytes, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = HOSTILE[kind]
    with pytest.raises(RefusedError) as caught:
        verify_bundle_signature(change(signature), bundle.manifest, [trusted(place, "ana")])
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("field", ["payload", "sig"])
def test_base64_has_one_form(bundle: Bundle, place: Path, signature: bytes, field: str) -> None:
    found = json.loads(signature)
    inner = found["dsseEnvelope"] if field == "payload" else found["dsseEnvelope"]["signatures"][0]
    inner[field] = inner[field][:4] + "\n" + inner[field][4:]
    with pytest.raises(RefusedError, match=f"{field}: expected base64 in its one form"):
        verify_bundle_signature(
            json.dumps(found, separators=(",", ":")).encode(), bundle.manifest, [trusted(place, "ana")]
        )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=100).map(lambda text: json.dumps(text).encode())))
def test_any_bytes_are_refused(bundle: Bundle, place: Path, data: bytes) -> None:
    with pytest.raises(RefusedError):
        verify_bundle_signature(data, bundle.manifest, [trusted(place, "ana")])


def test_other_curves_sign_too(bundle: Bundle, tmp_path: Path) -> None:
    for curve in (ec.SECP384R1(), ec.SECP521R1()):
        key = ec.generate_private_key(curve)
        (tmp_path / "key.pem").write_bytes(private_pem(key))
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        data = sign_bundle(bundle, Signer(private_key=tmp_path / "key.pem"))
        assert json.loads(data)["verificationMaterial"]["publicKey"]["hint"] == hint_of(key.public_key())
        assert verify_bundle_signature(data, bundle.manifest, [TrustedSigner(name="a", public_key=public)]).name == "a"


def private_pem(key: Any, password: bytes | None = None) -> bytes:
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    data: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    return data


def test_a_key_with_a_password_signs(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), b"word"))
    sign_bundle(bundle, Signer(private_key=tmp_path / "key.pem", password="word"))
    sign_directory(bundle.path, tmp_path / "sig", Signer(private_key=tmp_path / "key.pem", password="word"))
    for password in (None, "wrong"):
        with pytest.raises(InputError, match="expected an elliptic-curve private key"):
            sign_bundle(bundle, Signer(private_key=tmp_path / "key.pem", password=password))


@pytest.mark.parametrize("kind", ["rsa", "ed25519", "curve", "text", "public", "none", "folder"])
def test_keys_of_another_kind_are_named(bundle: Bundle, place: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key.pem"
    make: dict[str, Callable[[], object]] = {
        "rsa": lambda: path.write_bytes(private_pem(rsa.generate_private_key(65537, 2048))),
        "ed25519": lambda: path.write_bytes(private_pem(ed25519.Ed25519PrivateKey.generate())),
        "curve": lambda: path.write_bytes(private_pem(ec.generate_private_key(ec.SECP256K1()))),
        "text": lambda: path.write_text("secret"),
        "public": lambda: shutil.copy(place / "ana.pub", path),
        "none": lambda: None,
        "folder": path.mkdir,
    }
    make[kind]()
    with pytest.raises(InputError, match="expected an elliptic-curve private key in PEM") as caught:
        sign_bundle(bundle, Signer(private_key=path))
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="expected an elliptic-curve private key in PEM"):
        sign_directory(bundle.path, tmp_path / "sig", Signer(private_key=path))
    if kind != "public":
        with pytest.raises(InputError, match=r"key '.*key.pem'"):
            key_fingerprint(path)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({}, "give one of the two"),
        ({"public_key": b"a", "certificates": b"b", "identity": "c"}, "give one of the two"),
        ({"certificates": b"b"}, "belong together"),
        ({"public_key": b"a", "identity": "c"}, "belong together"),
    ],
)
def test_trust_names_one_way_to_know_a_signer(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrustedSigner(name="ana", **given_)


@pytest.mark.parametrize("package", ["model_signing._signing.sign_sigstore_pb", "OpenSSL"])
def test_a_package_that_is_not_there_is_named(
    bundle: Bundle, place: Path, signature: bytes, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"signatures need the package .*: pip install 'eul-serve\[sign\]'"):
        verify_bundle_signature(signature, bundle.manifest, [trusted(place, "ana")])


def test_a_manifest_alone_is_enough(bundle: Bundle, place: Path, signature: bytes) -> None:
    manifest = Manifest.from_bytes(bundle.manifest.to_bytes())
    assert verify_bundle_signature(signature, manifest, [trusted(place, "ana")]).name == "ana"
