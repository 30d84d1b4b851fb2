"""The server key: secret, and the root of every prefix-cache salt."""

from __future__ import annotations

import secrets
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.serve.settings import MIN_KEY_BYTES


def server_key(path: Path | None) -> bytes:
    """Return the key in a file, or a random one.

    Args:
        path: The file, as a Kubernetes Secret mounts it; None for a random key.

    Returns:
        The key.

    Raises:
        InputError: The file cannot be read, or holds too little.
    """
    if path is None:
        return secrets.token_bytes(32)
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise InputError(f"--key-file {str(path)!r}: cannot read: {error.strerror}") from error
    if len(key) < MIN_KEY_BYTES:
        raise InputError(f"--key-file {str(path)!r}: expected {MIN_KEY_BYTES} bytes or more, found {len(key)}")
    return key
