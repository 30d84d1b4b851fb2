"""What an object store asks of a file system: whole objects, ranges of them, and one listing for many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from eul_serve.format import FileEntry
from eul_serve.registry.store import Opened

OWN = "."
"""How names of the store's own objects begin; no record has such a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What a store says of an object without sending it."""

    size: int
    """Size in bytes."""
    age: float
    """Seconds since it was written, by the store's own clock."""
    digest: str | None
    """The SHA-256 that its writer had verified, as hex; "" where there should be one, None where none is kept."""


class Objects(Protocol):
    """Objects below one root, by their path relative to it.

    FileNotFoundError means that there is no such object, FileExistsError that there is one in the way. Everything else
    that goes wrong is raised as one of our errors.
    """

    def require(self) -> None:
        """Raise NotFoundError where the place (bucket, container) is not there."""
        ...

    def read(self, path: str, start: int, end: int) -> bytes:
        """Return the bytes of a range, as far as there are any."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Make an object whole, or raise FileExistsError."""
        ...

    def remove(self, path: str) -> None:
        """Remove an object; nothing happens where there is none."""
        ...

    def children(self, path: str) -> list[str]:
        """Return the names directly below a path, of objects and folders; `""` is the root."""
        ...

    def stat(self, path: str) -> Stat:
        """Return what is known of an object."""
        ...

    def below(self, path: str) -> Iterator[tuple[str, float]]:
        """Yield the objects directly below a path, each as name and age in seconds."""
        ...

    def upload(self, path: str, entry: FileEntry, source: Opened) -> None:
        """Store an object whole, in the place of another one; what the source raises is raised on."""
        ...
