"""One line at the end of a file, whole or not at all: what the registry's log and the audit log have in common."""

from __future__ import annotations

import os


def append_line(descriptor: int, line: bytes) -> None:
    """Append a line and wait until the disk has it; where it cannot be written, the file stays as it was.

    Args:
        descriptor: The file, opened for reading and appending.
        line: The line, with its end.

    Raises:
        OSError: It cannot be written.
    """
    size = os.fstat(descriptor).st_size
    # A killed writer may have left part of a line; it stays, as evidence, on a line of its own.
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line
    try:
        left = memoryview(line)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
