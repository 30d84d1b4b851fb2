"""Digests of bytes and files, always written `sha256:<64 hex digits>`, and the one way in which files are opened."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from eul_serve.errors import InputError

_CHUNK = 1 << 20


def digest_bytes(data: bytes) -> str:
    """Return the digest of a byte string."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the digest of a regular file; links are not followed.

    Args:
        path: The file.

    Returns:
        Its digest.

    Raises:
        InputError: The path is missing, a link, not a regular file, or cannot be read.
    """
    with reading(path) as file:
        return digest_open(file)


def digest_open(file: BinaryIO) -> str:
    """Return the digest of an open file, from its start, and leave it at its end."""
    file.seek(0)
    state = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        state.update(chunk)
    return "sha256:" + state.hexdigest()


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading without following a link, and close it.

    Args:
        path: The file.

    Yields:
        The open file.

    Raises:
        InputError: The path is missing, a link, not a regular file, or a read fails.
    """
    descriptor = open_regular(path)
    try:
        with os.fdopen(descriptor, "rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"file {str(path)!r}: cannot read: {error.strerror}; check the disk") from error


def open_regular(path: Path) -> int:
    """Open a regular file for reading without following a link at its last component.

    Args:
        path: The file.

    Returns:
        A file descriptor that the caller closes.

    Raises:
        InputError: The path is missing, a link, not a regular file, or not a path at all.
    """
    try:
        # O_NONBLOCK so that a FIFO cannot make us wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        found = "a link" if os.path.islink(path) else error.strerror
        raise InputError(f"file {str(path)!r}: expected a regular file, found {found}") from error
    except ValueError as error:
        raise InputError(f"file {str(path)!r}: not a path: {error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"file {str(path)!r}: expected a regular file, found another kind")
    return descriptor
