"""Publishing, reading and moving in a directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import InputError, NotFoundError
from eul_serve.format import Bundle, Reference, read_bundle
from eul_serve.registry.local import LocalRegistry

PlainBundle = Callable[..., Bundle]


@settings(max_examples=20, deadline=None)
@given(
    requests=st.sets(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True), min_size=1, max_size=4),
    rank=st.integers(1, 5),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
    name=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True).filter(lambda name: name != "base"),
    alias=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
)
def test_any_bundle_comes_back_bit_for_bit(
    plain_bundle: PlainBundle,
    tmp_path_factory: pytest.TempPathFactory,
    requests: set[str],
    rank: int,
    width: int,
    seed: int,
    name: str,
    alias: str,
) -> None:
    place = tmp_path_factory.mktemp("round")
    registry, bundle = LocalRegistry(place / "registry"), plain_bundle(*requests, rank=rank, width=width, seed=seed)
    published = registry.publish(bundle, name, alias)
    assert (published.revision, published.new, published.moved) == (bundle.revision, True, True)
    for text in (f"{name}:{alias}", published.reference):
        assert registry.resolve(Reference.parse(text)) == bundle.revision
    registry.fetch(name, bundle.revision, place / "back")
    assert {path.name: path.read_bytes() for path in (place / "back").iterdir()} == {
        path.name: path.read_bytes() for path in bundle.path.iterdir()
    }


def test_publishing_again_changes_no_file(registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    registry.publish(bundle, "poems", "stable")
    before = _contents(tmp_path / "registry")
    published = registry.publish(bundle, "poems", "stable")
    assert (published.new, published.moved) == (False, False)
    assert not registry.promote("poems", bundle.revision, "stable")
    assert _contents(tmp_path / "registry") == before


def test_two_names_share_blobs_and_nothing_else(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    bundle = plain_bundle()
    registry.publish(bundle, "one", "stable")
    blobs = sorted((tmp_path / "registry" / "blobs" / "sha256").iterdir())
    registry.publish(bundle, "two")
    assert sorted((tmp_path / "registry" / "blobs" / "sha256").iterdir()) == blobs
    assert registry.names() == ["one", "two"]
    assert registry.aliases("two") == {}
    with pytest.raises(NotFoundError, match="two:stable"):
        registry.resolve(Reference.parse("two"))


def test_statistics_are_stored_and_fetched_only_when_asked_for(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    bundle = plain_bundle(statistics=True)
    digest = bundle.manifest.artifacts["fusion.safetensors"].sha256.removeprefix("sha256:")
    blob = tmp_path / "registry" / "blobs" / "sha256" / digest
    registry.publish(bundle, "poems", "stable")
    assert not blob.exists()
    again = registry.publish(bundle, "poems", "stable", with_statistics=True)
    assert not again.new
    assert blob.exists()
    registry.fetch("poems", bundle.revision, tmp_path / "without")
    assert not (tmp_path / "without" / "fusion.safetensors").exists()
    registry.fetch("poems", bundle.revision, tmp_path / "with", with_statistics=True)
    assert read_bundle(tmp_path / "with").revision == bundle.revision
    assert (tmp_path / "with" / "fusion.safetensors").exists()


def test_statistics_that_are_not_there_are_an_error(registry: LocalRegistry, plain_bundle: PlainBundle) -> None:
    with pytest.raises(InputError, match="--with-statistics: no fusion statistics"):
        registry.publish(plain_bundle(), "poems", with_statistics=True)
    bundle = plain_bundle(statistics=True)
    (bundle.path / "fusion.safetensors").unlink()
    with pytest.raises(InputError, match=r"--with-statistics: no fusion\.safetensors"):
        registry.publish(bundle, "poems", with_statistics=True)


def test_a_dry_run_checks_and_writes_nothing(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    published = registry.publish(plain_bundle(), "poems", "stable", dry_run=True)
    assert (published.new, published.moved) == (True, True)
    assert not (tmp_path / "registry").exists()


def test_progress_counts_every_byte_of_a_first_and_a_second_publication(
    registry: LocalRegistry, plain_bundle: PlainBundle
) -> None:
    bundle = plain_bundle(width=2000)
    for _ in range(2):
        counted: list[int] = []
        registry.publish(bundle, "poems", on_bytes=counted.append)
        assert sum(counted) == sum(entry.size for entry in bundle.manifest.files.values())


@pytest.mark.parametrize("text", ["", "..", "a/b", "/a", "A", "a..b", "-a", ".a", "a\n", "a" * 64, "a\0"])
def test_names_that_break_the_grammar_reach_no_file(registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle,
                                                    text: str) -> None:  # fmt: skip
    bundle = plain_bundle()
    registry.publish(bundle, "poems", "stable")
    calls = (
        lambda: registry.publish(bundle, text),
        lambda: registry.publish(bundle, "poems", text),
        lambda: registry.promote(text, bundle.revision, "stable"),
        lambda: registry.promote("poems", bundle.revision, text),
        lambda: registry.promote("poems", text, "stable"),
        lambda: registry.rollback("poems", text),
        lambda: registry.revisions(text),
        lambda: registry.aliases(text),
        lambda: registry.alias(text, "stable"),
        lambda: registry.alias("poems", text),
        lambda: registry.manifest("poems", text),
        lambda: registry.resolve(Reference(text, "stable", None)),
    )
    before = _contents(tmp_path)
    for call in calls:
        with pytest.raises(InputError):
            call()
    assert _contents(tmp_path) == before


def test_the_name_base_means_the_base_model(registry: LocalRegistry, plain_bundle: PlainBundle) -> None:
    with pytest.raises(InputError, match="means the base model"):
        registry.publish(plain_bundle(), "base")


def test_what_is_not_there_is_said_to_be_not_there(registry: LocalRegistry, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    registry.publish(bundle, "poems", "stable")
    missing = "sha256:" + "0" * 64
    with pytest.raises(NotFoundError, match="no such name"):
        registry.revisions("prose")
    with pytest.raises(NotFoundError, match="prose:canary"):
        registry.resolve(Reference.parse("prose:canary"))
    with pytest.raises(NotFoundError, match=missing):
        registry.resolve(Reference.parse(f"poems@{missing}"))
    with pytest.raises(NotFoundError, match=missing):
        registry.promote("poems", missing, "stable")
    with pytest.raises(NotFoundError, match="never pointed elsewhere"):
        registry.rollback("poems", "stable")
    with pytest.raises(NotFoundError, match=r"no file 'run\.json'"):
        registry.read_file("poems", bundle.revision, "run.json")
    assert registry.aliases("prose") == {}


def test_small_files_are_read_by_name(registry: LocalRegistry, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    registry.publish(bundle, "poems")
    assert registry.read_file("poems", bundle.revision, "README.md") == (bundle.path / "README.md").read_bytes()


def test_a_directory_with_other_things_is_never_made_a_registry(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "thesis.tex").write_text("mine")
    with pytest.raises(NotFoundError, match="new or empty directory"):
        registry.publish(plain_bundle(), "poems")
    assert [path.name for path in (tmp_path / "registry").iterdir()] == ["thesis.tex"]


def test_another_layout_is_refused(registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    registry.publish(plain_bundle(), "poems")
    (tmp_path / "registry" / "registry.json").write_text('{"layout": 3}')
    registry = LocalRegistry(tmp_path / "registry")  # the other one looks again within a second
    with pytest.raises(InputError, match="expected layout 2"):
        registry.names()


def test_a_file_in_the_place_of_the_registry_is_refused(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    (tmp_path / "registry").write_text("a file")
    with pytest.raises(InputError):
        registry.publish(plain_bundle(), "poems")
    with pytest.raises(InputError):
        registry.names()


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
