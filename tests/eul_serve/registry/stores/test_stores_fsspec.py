"""The way that buckets of Google and Azure take, on a file system that keeps all in memory and answers as they do."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from eul_serve.errors import NotFoundError
from eul_serve.registry.fsspec_objects import FsspecObjects

YEAR_2001 = 1_000_000_000.0


class Bucket(MemoryFileSystem):  # type: ignore[misc]
    """A service with a clock of its own, years behind ours, on which a second passes with each question."""

    cachable = False

    def __init__(self) -> None:
        super().__init__(global_store=False)
        self.clock = itertools.count(YEAR_2001)
        self.written: dict[str, float] = {}

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        super().pipe_file(path, value, mode=mode, **options)
        self.written[self._strip_protocol(path)] = next(self.clock)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().info(path, **options)
        if (made := self.written.get(self._strip_protocol(path))) is not None:
            found["mtime"] = datetime.fromtimestamp(made, UTC)
        return found


def test_the_age_is_by_the_clock_of_the_service() -> None:
    objects = FsspecObjects(Bucket(), "bucket/registry", "gs://bucket/registry")
    objects.create("log/1.json", b"x")
    age = objects.stat("log/1.json").age
    assert 0 < age < 30
    assert objects.children("log") == ["1.json"]


def test_a_bucket_that_is_not_there_is_named() -> None:
    objects = FsspecObjects(Bucket(), "bucket/registry", "gs://bucket/registry")
    with pytest.raises(NotFoundError, match="gs://bucket/registry: there is no such bucket"):
        objects.children("log")
    with pytest.raises(NotFoundError, match="there is no such bucket"):
        objects.require()


def test_a_record_in_the_way_is_told() -> None:
    objects = FsspecObjects(Bucket(), "bucket/registry", "gs://bucket/registry")
    objects.create("log/1.json", b"x")
    with pytest.raises(FileExistsError):
        objects.create("log/1.json", b"y")
    assert objects.read("log/1.json", 0, 10) == b"x"
