"""Files on their way to the disk: large ones while they are written, and none whose disk has said no."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eul_serve.errors import InputError
from eul_serve.format import Bundle
from eul_serve.registry import writing
from eul_serve.registry.local import LocalRegistry

PlainBundle = Callable[..., Bundle]
MOST_SECONDS = 60


def new_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def test_a_large_file_goes_to_the_disk_before_its_last_bytes_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, fsync = threading.Event(), os.fsync

    def told(descriptor: int) -> None:
        fsync(descriptor)
        asked.set()

    def chunks() -> Iterator[bytes]:
        yield from [b"a" * 100] * 10
        assert asked.wait(MOST_SECONDS), "the disk was asked for nothing while the file was written"
        yield b"b"

    monkeypatch.setattr(writing, "BEHIND_BYTES", 1000)
    monkeypatch.setattr(os, "fsync", told)
    writing.write_down(new_file(tmp_path / "file"), chunks())
    assert (tmp_path / "file").read_bytes() == b"a" * 1000 + b"b"


def test_a_write_that_the_disk_refused_behind_our_back_publishes_nothing(
    registry: LocalRegistry, plain_bundle: PlainBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system tells one fsync of it, and answers the next one as if nothing had been."""
    registry.publish(plain_bundle(), "poems")
    large, fsync, told = plain_bundle(rank=8, width=2000), os.fsync, list[int]()

    def failing(descriptor: int) -> None:
        if threading.current_thread().name.startswith("eul-disk") and not told:
            told.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(writing, "BEHIND_BYTES", 1000)
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(InputError, match=r"Input/output error; check"):
        registry.publish(large, "poems")
    assert told
    assert registry.revisions("poems") == [plain_bundle().revision]
    assert not list((tmp_path / "registry" / "tmp").iterdir())


def test_what_a_source_raises_is_raised_on_and_leaves_the_descriptor_closed(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise InputError("no more")

    descriptor = new_file(tmp_path / "file")
    with pytest.raises(InputError, match="no more"):
        writing.write_down(descriptor, chunks())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_pulled_directory_is_on_the_disk_with_its_names(
    registry: LocalRegistry, plain_bundle: PlainBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, synced, fsync = plain_bundle(), set[str](), os.fsync

    def told(descriptor: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    registry.publish(bundle, "poems")
    monkeypatch.setattr(os, "fsync", told)
    registry.fetch("poems", bundle.revision, tmp_path / "pulled")
    assert synced == {str(tmp_path / "pulled"), *(str(path) for path in (tmp_path / "pulled").iterdir())}
