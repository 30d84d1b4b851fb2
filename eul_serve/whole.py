"""A file that is replaced as a whole, so that nobody sees half of it."""

from __future__ import annotations

import os
from pathlib import Path


def replace_whole(path: Path, text: str) -> None:
    """Write a file, and wait until the disk has it; where it cannot be written, the one before stays.

    Args:
        path: The file, replaced where it exists.
        text: What it is to hold.

    Raises:
        OSError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
