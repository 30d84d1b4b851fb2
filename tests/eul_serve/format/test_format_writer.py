"""Writing a bundle: what is written is what is read, whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import BundleFormatError, CapacityError, EulError, InputError
from eul_serve.format import Bundle, Manifest, read_bundle, write_bundle
from eul_serve.format.weights import load_layers

Contents = Callable[..., dict[str, bytes]]
ManifestOf = Callable[..., Manifest]


@given(
    rank=st.integers(2, 9),
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from(["F32", "F16", "BF16"]),
    hidden_bias=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_what_is_read(
    contents: Contents, manifest_of: ManifestOf, rank: int, widths: tuple[int, ...], dtype: str, hidden_bias: bool
) -> None:
    files = contents(rank=rank, widths=widths, dtype=dtype, hidden_bias=hidden_bias)
    manifest = manifest_of(files)
    with tempfile.TemporaryDirectory() as folder:
        written = write_bundle(Path(folder) / "b", manifest, files)
        read = read_bundle(Path(folder) / "b")
        assert written == read
        assert read.manifest == manifest
        assert read.revision == manifest.revision
        assert tuple(read.widths.values()) == widths
        layers = load_layers(read)
        assert all(layer.down.shape == (rank, width) for layer, width in zip(layers.values(), widths, strict=True))
        assert all((layer.bias is not None) == hidden_bias for layer in layers.values())
        assert sorted(os.listdir(folder)) == ["b"]
        assert {name: (Path(folder) / "b" / name).read_bytes() for name in files} == files


def test_further_files_and_artifacts(tmp_path: Path, contents: Contents, manifest_of: ManifestOf) -> None:
    files = {**contents(), "metrics.html": b"<p>"}
    statistics = b"statistics"
    manifest = manifest_of(files, artifacts=manifest_of({"fusion.safetensors": statistics}).files)
    path = tmp_path / "b"
    write_bundle(path, manifest, {**files, "fusion.safetensors": statistics, "run.json": b"{}"})
    assert (path / "run.json").read_bytes() == b"{}"
    (path / "fusion.safetensors").write_bytes(b"Statistics")
    with pytest.raises(BundleFormatError, match=r"file 'fusion.safetensors': expected sha256"):
        read_bundle(path)
    (path / "fusion.safetensors").unlink()
    read_bundle(path)
    (path / "fusion.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BundleFormatError, match=r"fusion.safetensors.*found a link"):
        read_bundle(path)


def test_an_empty_directory_is_taken(tmp_path: Path, contents: Contents, manifest_of: ManifestOf) -> None:
    (tmp_path / "b").mkdir()
    files = contents()
    assert write_bundle(tmp_path / "b", manifest_of(files), files).path == tmp_path / "b"


@pytest.mark.parametrize("name", ["full", "file", "link", "file/below", "nul\x00", 300 * "n"])
def test_targets_that_cannot_be_taken(tmp_path: Path, contents: Contents, manifest_of: ManifestOf, name: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    before = sorted(os.listdir(tmp_path))
    files = contents()
    with pytest.raises(InputError, match=r"output .*(new or empty directory|cannot write|not a path)"):
        write_bundle(tmp_path / name, manifest_of(files), files)
    assert sorted(os.listdir(tmp_path)) == before
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("name", ["../outside", "a/b", ".hidden", "manifest.json", ""])
def test_file_names_that_would_leave_the_bundle(
    tmp_path: Path, contents: Contents, manifest_of: ManifestOf, name: str
) -> None:
    files = {**contents(), name: b"x"}
    with pytest.raises(BundleFormatError, match="expected the plain name of a file"):
        write_bundle(tmp_path / "b", manifest_of(contents()), files)
    assert not list(tmp_path.iterdir())


def test_contents_that_are_no_bundle_leave_nothing(tmp_path: Path, contents: Contents, manifest_of: ManifestOf) -> None:
    files = contents()
    with pytest.raises(BundleFormatError, match="the file was changed"):
        write_bundle(tmp_path / "b", manifest_of(files), {**files, "README.md": b"Another.\n"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_settings_that_are_no_json(contents: Contents, manifest_of: ManifestOf, value: object) -> None:
    with pytest.raises(InputError, match="plain, finite JSON"):
        manifest_of(contents(), settings={"x": value}).to_bytes()


def test_settings_nested_without_end(contents: Contents, manifest_of: ManifestOf) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError, match="plain, finite JSON"):
        manifest_of(contents(), settings={"x": deep}).to_bytes()


def test_a_full_disk_leaves_nothing(tmp_path: Path, contents: Contents, manifest_of: ManifestOf) -> None:
    files = {**contents(), "README.md": bytes(100_000)}
    # A limit on file size stands in for a full disk: a write then fails halfway with EFBIG instead of ENOSPC.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(CapacityError, match="cannot write: File too large; free space"):
            write_bundle(tmp_path / "b", manifest_of(files), files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from eul_serve.format import read_bundle, write_bundle

golden, target, calls = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
bundle = read_bundle(golden)
files = {name: (golden / name).read_bytes() for name in bundle.manifest.files}
sync = os.fsync

def killing(descriptor):
    global calls
    calls -= 1
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)

os.fsync = killing
write_bundle(target, bundle.manifest, files)
"""


@pytest.mark.parametrize("calls", range(6))
def test_a_killed_writer_leaves_a_whole_bundle_or_only_a_part_directory(tmp_path: Path, calls: int) -> None:
    golden, target = Path(__file__).parent / "golden", tmp_path / "b"
    # Four files, then their directory, then its parent are synced: killed at each of the six.
    command = [sys.executable, "-c", KILLED, str(golden), str(target), str(calls)]
    assert subprocess.run(command, timeout=60, check=False).returncode == -9
    left = [path.name for path in tmp_path.iterdir()]
    if calls == 5:  # after the rename
        assert left == ["b"]
        assert read_bundle(target).revision == read_bundle(golden).revision
    else:
        assert len(left) == 1
        assert left[0].startswith(".b.")
        assert left[0].endswith(".part")
        manifest = read_bundle(golden).manifest
        files = {name: (golden / name).read_bytes() for name in manifest.files}
        write_bundle(target, manifest, files)  # what is left is in nobody's way


def test_of_many_writers_one_wins(tmp_path: Path, contents: Contents, manifest_of: ManifestOf) -> None:
    bundles = [contents(seed=seed) for seed in range(8)]

    def write(files: dict[str, bytes]) -> Bundle | EulError:
        try:
            return write_bundle(tmp_path / "b", manifest_of(files), files)
        except InputError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(write, bundles))
    winners = [result for result in results if isinstance(result, Bundle)]
    assert len(winners) == 1
    assert read_bundle(tmp_path / "b") == replace(winners[0], path=tmp_path / "b")
    assert os.listdir(tmp_path) == ["b"]


def test_a_relative_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Contents, manifest_of: ManifestOf
) -> None:
    monkeypatch.chdir(tmp_path)
    files = contents()
    assert write_bundle(Path("b"), manifest_of(files), files).weights.is_file()
    with pytest.raises(InputError, match="new or empty"):
        write_bundle(Path("."), manifest_of(files), files)
