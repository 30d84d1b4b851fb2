"""The bytes of bundles' files: counted, and held against their digest, as they pass."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from eul_serve.errors import BundleFormatError
from eul_serve.format import FileEntry
from eul_serve.format.digest import open_regular
from eul_serve.registry.base import OnBytes
from eul_serve.registry.tree import CHUNK_BYTES
from eul_serve.registry.writing import write_down


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
        yield from counted(iter(partial(file.read, CHUNK_BYTES), b""), on_bytes)


def counted(chunks: Iterable[bytes], on_bytes: OnBytes | None) -> Iterator[bytes]:
    """Yield pieces on, and tell a progress bar of them."""
    for data in chunks:
        yield data
        count(len(data), on_bytes)


def write_new(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that does not exist yet, down to the disk."""
    write_down(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), chunks)


def count(size: int, on_bytes: OnBytes | None) -> None:
    """Tell a progress bar of `size` more bytes."""
    if on_bytes is not None:
        on_bytes(size)
