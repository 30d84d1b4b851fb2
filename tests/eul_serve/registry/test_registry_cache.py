"""The verified cache of a server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eul_serve.errors import BundleFormatError, BundleMismatchError, InputError, NotFoundError
from eul_serve.format import Bundle
from eul_serve.registry import Cache
from eul_serve.registry.local import LocalRegistry

PlainBundle = Callable[..., Bundle]
PULL = """
import sys
from pathlib import Path
from eul_serve.registry import Cache, open_registry
print(Cache(Path(sys.argv[2])).pull(open_registry(sys.argv[1]), "poems", sys.argv[3], sys.argv[4]).path)
"""


@pytest.fixture
def bundle(registry: LocalRegistry, plain_bundle: PlainBundle) -> Bundle:
    """A bundle published with its statistics."""
    made = plain_bundle(statistics=True)
    registry.publish(made, "poems", "stable", with_statistics=True)
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache, named through a link."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "link").symlink_to("cache")
    return Cache(tmp_path / "link")


def test_a_pull_gives_a_real_absolute_path_with_the_digest_and_no_statistics(
    registry: LocalRegistry, cache: Cache, bundle: Bundle, plain_base: str, tmp_path: Path
) -> None:
    pulled = cache.pull(registry, "poems", bundle.revision, plain_base)
    assert pulled.path == (tmp_path / "cache" / "sha256" / bundle.revision.removeprefix("sha256:")).resolve()
    assert os.path.realpath(pulled.path) == str(pulled.path)
    assert sorted(path.name for path in pulled.path.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json",
    ]  # fmt: skip
    assert pulled.revision == bundle.revision


def test_a_revision_that_is_here_needs_no_registry(
    registry: LocalRegistry, cache: Cache, bundle: Bundle, plain_base: str, tmp_path: Path
) -> None:
    first = cache.pull(registry, "poems", bundle.revision, plain_base)
    gone = LocalRegistry(tmp_path / "gone")
    assert cache.pull(gone, "poems", bundle.revision, plain_base) == first


@pytest.mark.parametrize("damage", ["flip", "extra", "missing", "statistics", "link", "file", "other"])
def test_a_damaged_directory_is_removed_and_pulled_again(
    registry: LocalRegistry, cache: Cache, bundle: Bundle, plain_base: str, tmp_path: Path, plain_bundle: PlainBundle,
    damage: str,
) -> None:  # fmt: skip
    good = cache.pull(registry, "poems", bundle.revision, plain_base)
    path = good.path
    if damage == "flip":
        path.joinpath("README.md").write_text("# Another card")
    elif damage == "extra":
        path.joinpath("adapter_model.bin").write_bytes(b"pickle")
    elif damage == "missing":
        path.joinpath("adapter_config.json").unlink()
    elif damage == "statistics":
        path.joinpath("fusion.safetensors").write_bytes(bundle.path.joinpath("fusion.safetensors").read_bytes())
    elif damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.rename(tmp_path / "old")
        if damage == "file":
            path.write_text("a file")
        else:
            plain_bundle("r9", seed=9).path.rename(path)
    again = cache.pull(registry, "poems", bundle.revision, plain_base)
    assert again == good
    assert not path.is_symlink()
    assert len(list(path.iterdir())) == len(bundle.manifest.files) + 1


def test_another_base_model_is_refused_before_and_after_the_pull(
    registry: LocalRegistry, cache: Cache, bundle: Bundle, plain_base: str, tmp_path: Path
) -> None:
    other = "sha256:" + "e" * 64
    with pytest.raises(BundleMismatchError, match="train again"):
        cache.pull(registry, "poems", bundle.revision, other)
    assert list((tmp_path / "cache" / "sha256").iterdir()) == []
    pulled = cache.pull(registry, "poems", bundle.revision, plain_base)
    with pytest.raises(BundleMismatchError):
        cache.pull(registry, "poems", bundle.revision, other)
    assert pulled.path.is_dir()
    assert cache.pull(registry, "poems", bundle.revision).path == pulled.path


def test_a_damaged_registry_leaves_the_cache_empty(
    registry: LocalRegistry, cache: Cache, bundle: Bundle, plain_base: str, tmp_path: Path
) -> None:
    digest = bundle.manifest.files["adapter_model.safetensors"].sha256.removeprefix("sha256:")
    (tmp_path / "registry" / "blobs" / "sha256" / digest).write_bytes(b"x")
    with pytest.raises(BundleFormatError):
        cache.pull(registry, "poems", bundle.revision, plain_base)
    with pytest.raises(NotFoundError):
        cache.pull(registry, "poems", "sha256:" + "0" * 64, plain_base)
    with pytest.raises(InputError):
        cache.pull(registry, "poems", "../../etc", plain_base)
    assert list((tmp_path / "cache" / "sha256").iterdir()) == []
    assert list((tmp_path / "cache" / "tmp").iterdir()) == []


def test_what_a_killed_pull_left_is_cleared(
    registry: LocalRegistry, cache: Cache, bundle: Bundle, plain_base: str, tmp_path: Path
) -> None:
    part = tmp_path / "cache" / "tmp" / bundle.revision.removeprefix("sha256:")
    part.mkdir(parents=True)
    (part / "adapter_model.safetensors").write_bytes(b"half")
    cache.pull(registry, "poems", bundle.revision, plain_base)
    assert list((tmp_path / "cache" / "tmp").iterdir()) == []


def test_processes_that_pull_at_once_all_get_the_bundle(
    registry: LocalRegistry, bundle: Bundle, plain_base: str, tmp_path: Path
) -> None:
    words = [
        sys.executable,
        "-c",
        PULL,
        str(tmp_path / "registry"),
        str(tmp_path / "cache"),
        bundle.revision,
        plain_base,
    ]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert paths == {str(tmp_path.resolve() / "cache" / "sha256" / bundle.revision.removeprefix("sha256:"))}
