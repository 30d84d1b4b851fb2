"""Files of bundles by digest: staged when missing or damaged, verified whenever they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from eul_serve.errors import BundleFormatError, EulError
from eul_serve.format import FileEntry
from eul_serve.format.digest import open_regular
from eul_serve.registry.base import OnBytes
from eul_serve.registry.disk import disk_errors
from eul_serve.registry.tree import CHUNK_BYTES, Staging, Tree


class Blobs:
    """The `blobs` of one registry."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def stream(self, entry: FileEntry, where: str) -> Iterator[bytes]:
        """Yield a blob's bytes; whoever takes them must drop them all when the end raises.

        Args:
            entry: Digest and size of the blob.
            where: What the blob is, for messages.

        Yields:
            Pieces of at most 1 MiB.

        Raises:
            BundleFormatError: It is missing, a link, or differs from its digest.
        """
        try:
            with disk_errors(where):
                yield from checked(self._tree.chunks(*_parts(entry)), entry, where)
        except EulError as error:
            raise BundleFormatError(f"{error}; publish the bundle again to repair the registry") from error

    def holds(self, entry: FileEntry) -> bool:
        """Return whether a blob is stored and whole."""
        try:
            for _ in self.stream(entry, "blob"):
                pass
        except BundleFormatError:
            return False
        return True

    def stage(self, staged: Staging, source: Path, entry: FileEntry, on_bytes: OnBytes | None) -> None:
        """Stage a bundle's file where its blob is missing or damaged, or raise where the file changed since."""
        if self.holds(entry):
            count(entry.size, on_bytes)
            return
        staged.add(checked(read_chunks(source, on_bytes), entry, f"file {source.name!r}"), *_parts(entry))


def checked(chunks: Iterable[bytes], entry: FileEntry, where: str) -> Iterator[bytes]:
    """Yield pieces on, and raise BundleFormatError where they run past the size or end with another digest."""
    state, left = hashlib.sha256(), entry.size
    for data in chunks:
        left -= len(data)
        if left < 0:
            break
        state.update(data)
        yield data
    found = f"sha256:{state.hexdigest()}"
    if left or found != entry.sha256:
        raise BundleFormatError(f"{where}: expected {entry.sha256} of {entry.size} bytes, found other bytes")


def read_chunks(source: Path, on_bytes: OnBytes | None = None) -> Iterator[bytes]:
    """Yield the bytes of a regular file, without following a link, and count them."""
    with os.fdopen(open_regular(source), "rb") as file:
        while data := file.read(CHUNK_BYTES):
            yield data
            count(len(data), on_bytes)


def write_new(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that does not exist yet, down to the disk."""
    with open(path, "xb") as file:
        for data in chunks:
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def count(size: int, on_bytes: OnBytes | None) -> None:
    """Tell a progress bar of `size` more bytes."""
    if on_bytes is not None:
        on_bytes(size)


def _parts(entry: FileEntry) -> tuple[str, ...]:
    return ("blobs", "sha256", entry.sha256.removeprefix("sha256:"))
