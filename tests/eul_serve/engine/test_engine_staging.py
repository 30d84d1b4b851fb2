"""Bundles are read in a thread: nobody waits for it, errors keep their words, and nothing is kept for ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from eul_serve.engine.staging import MAX_WAITING, Staged, Staging, timed
from eul_serve.errors import BundleFormatError


class Reader:
    """Reads when it is told to."""

    def __init__(self) -> None:
        self.go, self.paths = threading.Event(), list[Path]()

    def __call__(self, path: Path) -> Staged:
        self.paths.append(path)
        assert self.go.wait(10)
        if path.name == "bad":
            raise BundleFormatError("file 'x': the file was changed")
        seconds: dict[str, float] = {}
        with timed(seconds, "verify"):
            pass
        return Staged(4, "relu", {}, seconds)


def wait_for(staging: Staging, path: Path) -> dict[str, float] | str:
    for _ in range(1000):
        if (state := staging.state(path)) is not None:
            return state
        time.sleep(0.005)
    raise AssertionError("not staged")


def test_starting_returns_at_once_and_the_bundle_is_read_once() -> None:
    reader = Reader()
    staging, path = Staging(reader), Path("a")
    staging.start(path)
    staging.start(path)
    assert staging.state(path) is None  # still reading, and we are not waiting for it
    reader.go.set()
    found = wait_for(staging, path)
    assert isinstance(found, dict)
    assert set(found) == {"verify"}
    assert staging.take(path).rank == 4
    assert reader.paths == [path]
    staging.take(path)  # taken up before: the bytes are read and checked again, never an old copy
    assert reader.paths == [path, path]


def test_a_refusal_keeps_its_words_and_can_be_tried_again() -> None:
    reader = Reader()
    reader.go.set()
    staging, path = Staging(reader), Path("bad")
    staging.start(path)
    assert wait_for(staging, path) == "BundleFormatError: file 'x': the file was changed"
    staging.start(path)
    with pytest.raises(BundleFormatError, match="changed"):
        staging.take(path)
    assert reader.paths == [path, path]


def test_what_nobody_takes_up_is_dropped() -> None:
    reader = Reader()
    reader.go.set()
    staging = Staging(reader)
    for number in range(MAX_WAITING + 1):
        staging.start(Path(str(number)))
        wait_for(staging, Path(str(number)))
    assert staging.state(Path("0")) == "it was not staged, or too many others were since"
    assert isinstance(staging.state(Path("1")), dict)
