"""`eul diff`, `pull`, `copy` and `publish --sign`: what they do, what they tell, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from cryptography.hazmat.primitives import serialization

from eul_serve.format import Bundle, Reference, read_bundle
from eul_serve.registry.aliases import Aliases
from eul_serve.registry.local import LocalRegistry
from eul_serve.signing import TrustedSigner, key_fingerprint, make_keys, verify_bundle_signature
from tests.eul_serve.signing.authority import Authority

PlainBundle = Callable[..., Bundle]
Eul = Callable[..., Result]


def _json(result: Result) -> Any:
    return json.loads(result.stdout)


def _files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_diff_tells_what_only_one_forgets_and_what_else_differs(eul: Eul, plain_bundle: PlainBundle) -> None:
    one = plain_bundle("r1", "r2", seed=1, rank=2)
    two = plain_bundle("r2", "r3", seed=2, rank=3, parents=(one.revision,), training_dtype="bfloat16")
    eul("publish", one.path, "--name", "poems", "--alias", "stable")
    eul("publish", two.path, "--name", "poems", "--alias", "next")
    found = _json(eul("diff", "poems", "poems:next", "--json"))
    assert (found["a"], found["b"]) == (f"poems@{one.revision}", f"poems@{two.revision}")
    assert (found["only_a_forgets"], found["both_forget"], found["only_b_forgets"]) == (["r1"], ["r2"], ["r3"])
    assert found["differ"] == {
        "parents": {"a": [], "b": [one.revision]},
        "rank": {"a": 2, "b": 3},
        "training_dtype": {"a": "float32", "b": "bfloat16"},
    }
    assert sorted(found["files"]) == ["adapter_config.json", "adapter_model.safetensors"]
    entry = two.manifest.files["adapter_config.json"]
    assert found["files"]["adapter_config.json"]["b"] == {"sha256": entry.sha256, "size": entry.size}
    text = eul("diff", "poems", "poems:next").stdout
    assert "does not move from A to B without --allow-unforget: r1 would come back" in text
    lines = [line.split() for line in text.splitlines()]
    for row in (
        ["only", "A", "forgets", "r1"],
        ["only", "B", "forgets", "r3"],
        ["both", "forget", "r2"],
        ["parents", "A", "none"],
        ["parents", "B", one.revision],
        ["training", "dtype", "B", "bfloat16"],
        ["file", "adapter_config.json", "B", str(entry.size), "bytes", entry.sha256],
    ):
        assert row in lines
    assert "file README.md" not in text


def test_diff_of_what_forgets_more_and_of_the_same(eul: Eul, plain_bundle: PlainBundle) -> None:
    less, more = plain_bundle("r1", seed=1), plain_bundle("r1", "r2", seed=1, statistics=True)
    eul("publish", less.path, "--name", "poems", "--alias", "stable")
    eul("publish", more.path, "--name", "verse", "--alias", "stable")
    text = eul("diff", "poems", "verse").stdout
    assert "an alias may move from A to B: B forgets all that A forgets" in text
    assert ["file", "fusion.safetensors", "A", "none"] in [line.split() for line in text.splitlines()]
    eul("publish", less.path, "--name", "verse", "--alias", "old")
    same = eul("diff", "poems", "verse:old").stdout
    assert same.endswith("they are the same revision\n")
    assert "What differs" not in same


def test_diff_names_requests_whose_rows_changed(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    from dataclasses import replace

    from eul_serve.format import write_bundle

    old = plain_bundle("r1", "r2")
    changed = tuple(replace(request, data="sha256:" + "e" * 64) for request in old.manifest.requests[:1])
    manifest = replace(old.manifest, requests=(*changed, *old.manifest.requests[1:]))
    new = write_bundle(
        tmp_path / "new", manifest, {name: (old.path / name).read_bytes() for name in old.manifest.files}
    )
    eul("publish", old.path, "--name", "poems", "--alias", "stable")
    eul("publish", new.path, "--name", "poems", "--alias", "next")
    assert _json(eul("diff", "poems", "poems:next", "--json"))["changed_requests"] == ["r1"]
    assert "other rows      r1\n" in eul("diff", "poems", "poems:next").stdout


def test_pull_writes_a_bundle_that_can_be_published_again(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle(statistics=True)
    eul("publish", bundle.path, "--name", "poems", "--alias", "stable", "--with-statistics")
    place = tmp_path / "pulled"
    done = eul("pull", "poems", place)
    assert done.stdout.splitlines()[-1] == f"poems@{bundle.revision}"
    assert read_bundle(place).revision == bundle.revision
    wanted = _files(bundle.path)
    assert _files(place) == {name: data for name, data in wanted.items() if name != "fusion.safetensors"}
    told = _json(eul("pull", "poems", tmp_path / "all", "--with-statistics", "--json"))
    assert told == {"banned": False, "directory": str(tmp_path / "all"), "name": "poems",
                    "revision": bundle.revision, "statistics": True}  # fmt: skip
    assert _files(tmp_path / "all") == wanted
    assert eul("publish", place, "--name", "poems").stdout.startswith("already published")
    assert {path.name for path in tmp_path.iterdir()} == {"registry", "pulled", "all"}


def test_pull_leaves_nothing_where_it_fails(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = plain_bundle()
    eul("publish", bundle.path, "--name", "poems", "--alias", "stable")
    work = tmp_path / "work"
    (work / "there").mkdir(parents=True)
    monkeypatch.chdir(work)
    assert "there is one already; name a new one" in eul("pull", "poems", "there", status=2).stderr
    assert "it has no fusion statistics" in eul("pull", "poems", "new", "--with-statistics", status=2).stderr
    assert "make the directory that it is to be in" in eul("pull", "poems", "no/where", status=4).stderr
    eul("pull", "verse", "new", status=4)
    blob = bundle.manifest.files["adapter_model.safetensors"].sha256.removeprefix("sha256:")
    (tmp_path / "registry" / "blobs" / "sha256" / blob).write_bytes(b"other")
    failed = eul("pull", "poems", "new", status=2)
    assert "adapter_model.safetensors" in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert [path.name for path in work.iterdir()] == ["there"]


def test_statistics_that_were_not_published_cannot_be_pulled(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    eul("publish", plain_bundle(statistics=True).path, "--name", "poems", "--alias", "stable")
    failed = eul("pull", "poems", tmp_path / "new", "--with-statistics", status=2)
    assert "fusion.safetensors" in failed.stderr
    assert not (tmp_path / "new").exists()


def test_a_banned_revision_is_pulled_with_a_warning(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    eul("publish", bundle.path, "--name", "poems", "--alias", "stable")
    eul("ban", "poems", "--reason", "brings back r1")
    assert "so do not serve it: brings back r1" in eul("pull", "poems", tmp_path / "one").stdout
    assert _json(eul("pull", "poems", tmp_path / "two", "--json"))["banned"] is True


def test_copy_takes_a_bundle_and_its_signatures_to_another_registry(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    bundle, there = plain_bundle(statistics=True), LocalRegistry(tmp_path / "there")
    LocalRegistry(tmp_path / "registry").publish(
        bundle, "poems", "stable", signatures=[b'{"a":1}', b'{"b":2}'], with_statistics=True
    )
    done = eul("copy", "poems", "--to", tmp_path / "there")
    assert done.stdout == f"copied, signatures 2\npoems@{bundle.revision}\n"
    assert there.alias_names("poems") == []
    assert there.signatures("poems", bundle.revision) == LocalRegistry(tmp_path / "registry").signatures(
        "poems", bundle.revision
    )
    words = ["copy", "poems", "--to", tmp_path / "there", "--name", "verse", "--alias", "next", "--with-statistics"]
    assert _json(eul(*words, "--json")) == {
        "alias": "next", "moved": True, "name": "verse", "new": True, "reference": f"verse@{bundle.revision}",
        "revision": bundle.revision, "signatures": 2,
    }  # fmt: skip
    assert there.resolve(Reference.parse("verse:next")) == bundle.revision
    there.fetch("verse", bundle.revision, tmp_path / "back", with_statistics=True)
    assert _files(tmp_path / "back") == _files(bundle.path)
    assert eul(*words).stdout.startswith("there already, signatures 2; verse:next points to it already")
    assert there.alias("verse", "next").history[0].actor == "ann"


def test_copy_refuses_what_would_un_forget(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    less, more = plain_bundle("r1", seed=1), plain_bundle("r1", "r2", seed=2)
    there = LocalRegistry(tmp_path / "there")
    there.publish(more, "poems", "stable")
    eul("publish", less.path, "--name", "poems", "--alias", "stable")
    words = ["copy", "poems", "--to", tmp_path / "there", "--alias", "stable"]
    refused = eul(*words, status=5)
    assert "does not cover request 'r2'" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert there.revisions("poems") == [more.revision]
    eul(*words, "--allow-unforget", "ticket 7")
    assert there.alias("poems", "stable").history[-1].reason == "ticket 7"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["copy", "poems"], 2, "Missing option '--to'"),
        (["copy", "poems", "--to", "ftp://host"], 2, "unknown scheme 'ftp'"),
        (["copy", "poems", "--to", "there", "--name", "base"], 4, "no registry there"),
        (["copy", "poems", "--to", "there", "--name", "../x"], 2, "bundle name '../x'"),
        (["diff", "poems"], 2, "Missing argument 'B'"),
        (["diff", "poems", "poems:next"], 4, "no registry there"),
        (["pull", "poems"], 2, "Missing argument 'DIR'"),
        (["pull", "poems", "new"], 4, "no registry there"),
        (["publish", "bundle", "--name", "poems", "--certificate", "c.pem"], 2, "add --sign FILE"),
        (["publish", "bundle", "--name", "poems", "--chain", "c.pem"], 2, "add --sign FILE"),
        (["publish", "bundle", "--name", "poems", "--key-password-env", "X"], 2, "add --sign FILE"),
        (["publish", "bundle", "--name", "poems", "--sign", "k.pem", "--chain", "c.pem"], 2, "--certificate FILE too"),
    ],
)
def test_bad_input_gives_one_line_and_writes_nothing(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle, monkeypatch: pytest.MonkeyPatch, words: list[str], status: int,
    message: str,
) -> None:  # fmt: skip
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    bundle = str(plain_bundle().path)
    failed = eul(*(bundle if word == "bundle" else word for word in words), status=status)
    assert (failed.stdout, failed.stderr.count("\n")) == ("", 1)
    assert message in failed.stderr
    assert list(work.iterdir()) == []
    assert not (tmp_path / "registry").exists()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key; `key.pub` beside it is the public one."""
    make_keys(tmp_path / "key.pem", tmp_path / "key.pub")
    return tmp_path / "key.pem"


def _signer(key: Path) -> TrustedSigner:
    return TrustedSigner(name="ann", public_key=key.with_suffix(".pub").read_bytes())


def test_publish_signs_before_the_alias_moves(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, registry = plain_bundle(), LocalRegistry(tmp_path / "registry")
    words = ["publish", bundle.path, "--name", "poems", "--alias", "stable", "--sign", key]
    move = Aliases.move

    def checked(self: Aliases, *what: Any) -> bool:
        (data,) = registry.signatures("poems", bundle.revision)
        assert verify_bundle_signature(data, bundle.manifest, [_signer(key)]).name == "ann"
        return move(self, *what)

    with monkeypatch.context() as patch:
        patch.setattr(Aliases, "move", checked)
        assert _json(eul(*words, "--json"))["signatures"] == 1
    assert registry.resolve(Reference.parse("poems")) == bundle.revision
    assert _json(eul(*words, "--json"))["signatures"] == 0  # a second one of this key says nothing new
    assert "signatures  1" in eul("show", "poems").stdout
    assert _json(eul("show", "poems", "--json"))["signatures"] == 1
    eul("copy", "poems", "--to", tmp_path / "there")
    (data,) = LocalRegistry(tmp_path / "there").signatures("poems", bundle.revision)
    assert verify_bundle_signature(data, bundle.manifest, [_signer(key)]).fingerprint == key_fingerprint(
        key.with_suffix(".pub")
    )


def test_another_key_signs_what_is_there_and_a_false_signature_keeps_nobody_from_it(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle, key: Path
) -> None:
    bundle, registry, other = plain_bundle(), LocalRegistry(tmp_path / "registry"), tmp_path / "other.pem"
    make_keys(other, tmp_path / "other.pub")
    registry.publish(bundle, "poems", signatures=[b'{"no":"signature"}'])
    for private, added in ((key, 1), (other, 1), (key, 0), (other, 0)):
        line = eul("publish", bundle.path, "--name", "poems", "--json", EUL_SIGN_KEY=str(private))
        assert _json(line)["signatures"] == added
    assert len(registry.signatures("poems", bundle.revision)) == 3


def test_a_signature_with_a_certificate_holds_for_those_who_believe_its_authority(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    bundle, authority = plain_bundle(), Authority(tmp_path)
    signer = authority.signer("build")
    assert signer.certificate is not None
    words = ["--sign", signer.private_key, "--certificate", signer.certificate, "--chain", authority.file]
    eul("publish", bundle.path, "--name", "poems", *words)
    (data,) = LocalRegistry(tmp_path / "registry").signatures("poems", bundle.revision)
    believed = TrustedSigner(name="ci", certificates=authority.file.read_bytes(), identity="build")
    assert verify_bundle_signature(data, bundle.manifest, [believed]).name == "ci"


def test_a_key_with_a_password_signs_where_the_password_is_in_the_environment(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle, key: Path
) -> None:
    bundle = plain_bundle()
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"open sesame"),
    )
    key.write_bytes(locked)
    words = ["publish", bundle.path, "--name", "poems", "--sign", key]
    for more, variables in (
        ([], {}),
        (["--key-password-env", "KEY_PASSWORD"], {}),
        (["--key-password-env", "KEY_PASSWORD"], {"KEY_PASSWORD": "open barley"}),
    ):
        failed = eul(*words, *more, status=2, **variables)
        assert failed.stderr.count("\n") == 1
        assert "barley" not in failed.stderr
        assert not (tmp_path / "registry").exists()
    eul(*words, "--key-password-env", "KEY_PASSWORD", KEY_PASSWORD="open sesame")
    (data,) = LocalRegistry(tmp_path / "registry").signatures("poems", bundle.revision)
    assert verify_bundle_signature(data, bundle.manifest, [_signer(key)]).name == "ann"


def test_what_is_no_key_signs_and_publishes_nothing(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    (tmp_path / "key.pem").write_text("a secret that is no key")
    for file in ("key.pem", "none.pem"):
        failed = eul("publish", plain_bundle().path, "--name", "poems", "--sign", tmp_path / file, status=2)
        assert file in failed.stderr
        assert "a secret" not in failed.stderr
        assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "registry").exists()


def test_a_signer_is_banned_by_what_keygen_printed(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    eul("publish", plain_bundle().path, "--name", "poems")
    words = ["keygen", "--private", tmp_path / "a.pem", "--public", tmp_path / "a.pub"]
    printed = eul(*words).stdout.splitlines()[-1]
    assert printed == key_fingerprint(tmp_path / "a.pub")
    eul("ban", "--signer", printed, "--reason", "stolen")
    assert LocalRegistry(tmp_path / "registry").standing().banned_signers.keys() == {printed}
    words = ["keygen", "--private", tmp_path / "b.pem", "--public", tmp_path / "b.pub", "--json"]
    assert _json(eul(*words))["fingerprint"] == key_fingerprint(tmp_path / "b.pub")


def test_a_directory_from_the_hugging_face_hub_is_a_bundle(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    import shutil

    bundle, repository = plain_bundle(), tmp_path / "repository"
    shutil.copytree(bundle.path, repository)
    (repository / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (repository / ".cache" / "huggingface").mkdir(parents=True)
    assert eul("publish", repository, "--name", "poems").stdout.splitlines()[-1] == f"poems@{bundle.revision}"
    eul("pull", f"poems@{bundle.revision}", tmp_path / "back")
    assert _files(tmp_path / "back") == _files(bundle.path)
