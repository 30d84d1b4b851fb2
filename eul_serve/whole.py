"""A file that is replaced as a whole, so that nobody sees half of it."""

from __future__ import annotations

import os
from pathlib import Path


def replace_whole(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a file, and wait until the disk has it; where it cannot be written, the one before stays.

    Args:
        path: The file, replaced where it exists.
        text: What it is to hold.
        mode: Its rights, less what the umask takes away.

    Raises:
        OSError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
