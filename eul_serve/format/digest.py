"""Digests of bytes and files, always written `sha256:<64 hex digits>`."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from eul_serve.errors import InputError

_CHUNK = 1 << 20


def digest_bytes(data: bytes) -> str:
    """Return the digest of a byte string."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the digest of a regular file; links are not followed.

    Raises:
        InputError: The path is missing, a link, or not a regular file.
    """
    state = hashlib.sha256()
    with os.fdopen(open_regular(path), "rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return "sha256:" + state.hexdigest()


def open_regular(path: Path) -> int:
    """Open a regular file for reading without following a link at its last component.

    Args:
        path: The file.

    Returns:
        A file descriptor that the caller closes.

    Raises:
        InputError: The path is missing, a link, or not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"file {str(path)!r}: expected a regular file, found {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"file {str(path)!r}: expected a regular file, found another kind")
    return descriptor
