"""A registry whose files were damaged or planted: found before use, named, and repaired by publishing again."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import BundleFormatError, EulError, InputError, NotFoundError
from eul_serve.format import Bundle, Reference, read_bundle
from eul_serve.registry.local import LocalRegistry

PlainBundle = Callable[..., Bundle]


@pytest.fixture
def bundle(registry: LocalRegistry, plain_bundle: PlainBundle) -> Bundle:
    """A bundle published as poems:stable."""
    made = plain_bundle()
    registry.publish(made, "poems", "stable")
    return made


@pytest.fixture
def blob(bundle: Bundle, tmp_path: Path) -> Path:
    """The blob of its weights."""
    digest = bundle.manifest.files["adapter_model.safetensors"].sha256.removeprefix("sha256:")
    return tmp_path / "registry" / "blobs" / "sha256" / digest


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _link(path: Path) -> None:
    path.rename(path.with_name("moved-away"))
    path.symlink_to("moved-away")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}))


@pytest.mark.parametrize("damage", [_flip, _truncate, _lengthen, _link, _pipe, _pickle, Path.unlink])
def test_a_damaged_blob_is_never_returned_and_publishing_again_repairs_it(
    registry: LocalRegistry, tmp_path: Path, bundle: Bundle, blob: Path, damage: Callable[[Path], None]
) -> None:
    damage(blob)
    with pytest.raises(BundleFormatError, match=r"adapter_model\.safetensors.*publish the bundle again"):
        registry.fetch("poems", bundle.revision, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert not registry.publish(bundle, "poems", "stable").new
    registry.fetch("poems", bundle.revision, tmp_path / "back")
    assert read_bundle(tmp_path / "back").revision == bundle.revision


def test_every_flipped_bit_of_a_small_file_is_found(registry: LocalRegistry, tmp_path: Path, bundle: Bundle) -> None:
    blob = (
        tmp_path / "registry" / "blobs" / "sha256" / bundle.manifest.files["README.md"].sha256.removeprefix("sha256:")
    )
    good = blob.read_bytes()
    for bit in range(8 * len(good)):
        blob.write_bytes(bytes(byte ^ (1 << bit % 8 if index == bit // 8 else 0) for index, byte in enumerate(good)))
        with pytest.raises(BundleFormatError, match=r"README\.md"):
            registry.read_file("poems", bundle.revision, "README.md")


@pytest.mark.parametrize("parts", [("blobs",), ("blobs", "sha256"), ("names",), ("names", "poems"),
                                   ("names", "poems", "revisions"), ("names", "poems", "aliases")])  # fmt: skip
def test_a_linked_directory_is_never_followed(
    registry: LocalRegistry, tmp_path: Path, bundle: Bundle, parts: tuple[str, ...]
) -> None:
    planted = (tmp_path / "registry").joinpath(*parts)
    planted.rename(tmp_path / "elsewhere")
    planted.symlink_to(tmp_path / "elsewhere")
    before = sorted(str(path) for path in (tmp_path / "elsewhere").rglob("*"))
    with pytest.raises(EulError, match="link"):
        registry.fetch("poems", registry.resolve(Reference.parse("poems")), tmp_path / "back")
    with pytest.raises(EulError, match="link"):
        registry.publish(bundle, "prose" if len(parts) == 1 else "poems", "stable")
    assert sorted(str(path) for path in (tmp_path / "elsewhere").rglob("*")) == before


def test_a_damaged_manifest_is_named_and_repaired(registry: LocalRegistry, tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "registry" / "names" / "poems" / "revisions" / f"{bundle.revision.removeprefix('sha256:')}.json"
    good = path.read_bytes()
    for data in (good + b" ", b"", b"{}", good.replace(b"r1", b"r2")):
        path.write_bytes(data)
        with pytest.raises(BundleFormatError, match="publish the bundle again"):
            registry.resolve(Reference.parse("poems"))
    assert registry.publish(bundle, "poems", "stable").new
    assert path.read_bytes() == good


@pytest.mark.parametrize("change", [
    {"files": {"../escape": {"sha256": "sha256:" + "0" * 64, "size": 1}}},
    {"files": {"a/b": {"sha256": "sha256:" + "0" * 64, "size": 1}}},
    {"files": {"manifest.json": {"sha256": "sha256:" + "0" * 64, "size": 1}}},
    {"requests": []},
    {"version": 99},
    {"surprise": 1},
])  # fmt: skip
def test_a_hostile_manifest_with_a_right_digest_is_refused(
    registry: LocalRegistry, tmp_path: Path, bundle: Bundle, change: dict[str, object]
) -> None:
    data = json.dumps({**json.loads(bundle.manifest.to_bytes()), **change}, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(data.encode()).hexdigest()
    (tmp_path / "registry" / "names" / "poems" / "revisions" / f"{digest}.json").write_text(data)
    with pytest.raises(BundleFormatError):
        registry.fetch("poems", f"sha256:{digest}", tmp_path / "back")
    assert not (tmp_path / "back").exists()


NEARLY = st.from_regex(r'\{"history": ?\[\{.{0,60}\}\], "revision": "sha256:[0-9a-f]{64}"\}', fullmatch=True)


@pytest.fixture(scope="module")
def aliased(tmp_path_factory: pytest.TempPathFactory, plain_bundle: PlainBundle) -> Path:
    """A registry with one bundle under one alias."""
    root = tmp_path_factory.mktemp("aliased") / "registry"
    LocalRegistry(root).publish(plain_bundle(), "poems", "stable")
    return root


@settings(max_examples=150, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode), NEARLY.map(str.encode)))
def test_any_bytes_in_an_aliass_file_give_an_error_of_ours(aliased: Path, data: bytes) -> None:
    registry = LocalRegistry(aliased)
    (aliased / "names" / "poems" / "aliases" / "stable.json").write_bytes(data)
    for call in (registry.aliases, lambda name: registry.rollback(name, "stable")):
        with pytest.raises(BundleFormatError, match="poems:stable"):
            call("poems")


@pytest.mark.parametrize("change", [
    {"revision": "sha256:" + "0" * 64},
    {"history": []},
    {"history": ["promote"]},
    {"history": [{"act": "steal", "actor": None, "at": "now", "reason": None, "revision": "sha256:" + "0" * 64}],
     "revision": "sha256:" + "0" * 64},
    {"history": [{"act": "promote", "actor": None, "at": "now", "reason": None, "revision": "x"}], "revision": "x"},
    {"history": [{"act": "promote", "actor": 7, "at": "now", "reason": None, "revision": "sha256:" + "0" * 64}]},
])  # fmt: skip
def test_an_alias_whose_history_does_not_lead_to_it_is_refused(
    registry: LocalRegistry, tmp_path: Path, bundle: Bundle, change: dict[str, object]
) -> None:
    path = tmp_path / "registry" / "names" / "poems" / "aliases" / "stable.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(BundleFormatError, match="poems:stable"):
        registry.resolve(Reference.parse("poems"))
    with pytest.raises(BundleFormatError, match="poems:stable"):
        registry.publish(bundle, "poems", "stable")


def test_a_damaged_alias_leaves_the_others_readable(registry: LocalRegistry, tmp_path: Path, bundle: Bundle) -> None:
    registry.promote("poems", bundle.revision, "next")
    (tmp_path / "registry" / "names" / "poems" / "aliases" / "next.json").write_text("{")
    assert registry.alias("poems", "stable").revision == bundle.revision
    assert registry.alias_names("poems") == ["next", "stable"]
    for read in (registry.aliases, lambda name: registry.alias(name, "next")):
        with pytest.raises(BundleFormatError, match="poems:next"):
            read("poems")


def test_an_alias_to_a_revision_that_is_gone_says_so_and_does_not_move_unseen(
    registry: LocalRegistry, tmp_path: Path, bundle: Bundle, plain_bundle: PlainBundle
) -> None:
    (tmp_path / "registry" / "names" / "poems" / "revisions" / f"{bundle.revision[7:]}.json").unlink()
    with pytest.raises(NotFoundError, match=bundle.revision):
        registry.resolve(Reference.parse("poems"))
    with pytest.raises(NotFoundError, match=bundle.revision):
        registry.publish(plain_bundle(seed=5), "poems", "stable", allow_unforget="even with a reason")


def test_a_bundle_that_changes_after_it_was_read_is_not_published(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    bundle = plain_bundle(seed=9)
    _flip(bundle.weights)
    with pytest.raises(BundleFormatError, match="adapter_model"):
        registry.publish(bundle, "poems", "stable")
    assert registry_is_empty(tmp_path / "registry")


def test_a_link_in_the_bundle_is_not_published(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    bundle = plain_bundle(seed=10)
    _link(bundle.weights)
    with pytest.raises(InputError, match="expected a regular file"):
        registry.publish(bundle, "poems", "stable")
    assert registry_is_empty(tmp_path / "registry")


def test_names_that_are_not_ours_are_left_out(registry: LocalRegistry, tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "registry" / "names" / "NOT OURS").mkdir()
    (tmp_path / "registry" / "names" / "empty").mkdir()
    assert registry.names() == ["poems"]


def registry_is_empty(root: Path) -> bool:
    """Whether nothing but directories, locks and the registry's mark is there."""
    files = [path for path in root.rglob("*") if path.is_file() and path.parent.name != "locks"]
    return files == [root / "registry.json"]
