"""How bytes come to a disk: whole, and while more of them are on their way."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

BEHIND_BYTES = 64 << 20
"""Bytes that are written before the disk is asked to take them: small files are taken at once, at their end."""
PIECE_BYTES = 256 << 10
"""Bytes of one write. For 1 MiB Linux looks for as much memory in one piece, and in a virtual machine 2 GB then cost
the system four times as many seconds of the processor as in pieces of this size."""


def write_down(descriptor: int, chunks: Iterable[bytes]) -> None:
    """Write a new file, and return when it is on the disk.

    A large file goes to the disk while its next bytes come, as the system may keep gigabytes back until it is asked.

    Args:
        descriptor: The file, open for writing; closed afterwards, also after an error.
        chunks: Its bytes; what they raise is raised on.
    """
    with os.fdopen(descriptor, "wb") as file, ThreadPoolExecutor(1, "eul-disk") as disk:
        behind: Future[None] | None = None
        waiting = 0
        for data in chunks:
            for start in range(0, len(data), PIECE_BYTES):
                file.write(memoryview(data)[start : start + PIECE_BYTES])
            waiting += len(data)
            if waiting >= BEHIND_BYTES and (behind is None or behind.done()):
                _raise_error(behind)
                behind, waiting = disk.submit(os.fsync, descriptor), 0
        file.flush()
        _raise_error(behind)
        os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Have the names in a directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_error(behind: Future[None] | None) -> None:
    """Raise what went wrong: the system tells a failed write to one fsync, and the next one hears nothing of it."""
    if behind is not None:
        behind.result()
