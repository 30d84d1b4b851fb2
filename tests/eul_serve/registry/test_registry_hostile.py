"""A registry whose files were damaged or planted: found before use, named, and repaired by publishing again."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.audit.chain import START, Entry
from eul_serve.errors import BundleFormatError, EulError, InputError, NotFoundError
from eul_serve.format import Bundle, Reference, read_bundle
from eul_serve.registry.local import LocalRegistry
from tests.eul_serve.registry_files import alias_files

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


NEARLY = st.from_regex(
    r'\{"act":"promote","at":".{0,60}","facts":\{"revision":"sha256:[0-9a-f]{64}"\}\}\n', fullmatch=True
)


@pytest.fixture(scope="module")
def aliased(tmp_path_factory: pytest.TempPathFactory, plain_bundle: PlainBundle) -> Path:
    """A registry with one bundle under one alias."""
    root = tmp_path_factory.mktemp("aliased") / "registry"
    LocalRegistry(root).publish(plain_bundle(), "poems", "stable")
    return root


@settings(max_examples=150, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode), NEARLY.map(str.encode)))
def test_any_bytes_in_an_aliass_file_give_an_error_of_ours(aliased: Path, data: bytes) -> None:
    alias_files(aliased, "poems", "stable")[0].write_bytes(data)
    registry = LocalRegistry(aliased)
    for call in (registry.aliases, lambda name: registry.rollback(name, "stable")):
        with pytest.raises(BundleFormatError, match="poems:stable"):
            call("poems")


GOOD = {"actor": None, "reason": None, "revision": "sha256:" + "0" * 64}


@pytest.mark.parametrize("change", [
    {"number": 2},
    {"before": "sha256:" + "1" * 64},
    {"act": "steal"},
    {"at": 7},
    {"facts": {}},
    {"facts": {**GOOD, "revision": "x"}},
    {"facts": {**GOOD, "revision": None}},
    {"facts": {**GOOD, "actor": 7}},
    {"facts": {**GOOD, "reason": ["court order"]}},
])  # fmt: skip
def test_an_entry_with_a_right_digest_that_tells_of_no_move_is_refused(
    tmp_path: Path, bundle: Bundle, change: dict[str, Any]
) -> None:
    (path,) = alias_files(tmp_path / "registry", "poems", "stable")
    entry = {"act": "promote", "at": "2026-01-01T00:00:00+00:00", "before": START, "facts": GOOD, "number": 1, **change}
    path.write_bytes(Entry(entry["number"], entry["at"], entry["act"], entry["facts"], entry["before"]).to_line())
    registry = LocalRegistry(tmp_path / "registry")
    with pytest.raises(BundleFormatError, match="poems:stable"):
        registry.resolve(Reference.parse("poems"))
    with pytest.raises(BundleFormatError, match="poems:stable"):
        registry.publish(bundle, "poems", "stable")


def test_an_entry_that_was_changed_or_taken_out_of_the_middle_is_noticed(
    registry: LocalRegistry, tmp_path: Path, bundle: Bundle, plain_bundle: PlainBundle
) -> None:
    for seed in (1, 2):
        registry.publish(plain_bundle(seed=seed), "poems", "stable")
    first, second, third = alias_files(tmp_path / "registry", "poems", "stable")
    good = second.read_bytes()
    for data in (first.read_bytes(), third.read_bytes(), good.replace(b"publish", b"promote"), b""):
        second.write_bytes(data)
        with pytest.raises(BundleFormatError, match=r"poems:stable.*0000000002"):
            LocalRegistry(tmp_path / "registry").resolve(Reference.parse("poems"))
    second.write_bytes(good)
    assert len(LocalRegistry(tmp_path / "registry").alias("poems", "stable").history) == 3
    log = sorted((tmp_path / "registry" / "log").iterdir())
    log[1].write_bytes(log[1].read_bytes().replace(b"poems", b"songs"))
    with pytest.raises(BundleFormatError, match="log"):
        list(LocalRegistry(tmp_path / "registry").log.entries())


def test_a_damaged_alias_leaves_the_others_readable(registry: LocalRegistry, tmp_path: Path, bundle: Bundle) -> None:
    LocalRegistry(tmp_path / "registry").promote("poems", bundle.revision, "next")
    alias_files(tmp_path / "registry", "poems", "next")[0].write_text("{")
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
    """Whether nothing can be seen: no name, no act, and what was uploaded is whole."""
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in (root / "blobs").rglob("*/*"))
    return not any((root / folder).exists() for folder in ("names", "log")) and not list((root / "tmp").glob("*.part"))
