"""Bearer tokens in files."""

from __future__ import annotations

from pathlib import Path

from eul_serve.errors import InputError

MAX_TOKEN_BYTES = 4096


def read_token(path: Path) -> str:
    """Return the token in a file.

    Args:
        path: The file.

    Returns:
        The token.

    Raises:
        InputError: The file cannot be read, or does not hold one word.
    """
    try:
        with path.open("rb") as file:
            words = file.read(MAX_TOKEN_BYTES + 1).decode("ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not plain ASCII"
        raise InputError(f"--token-file {str(path)!r}: cannot read: {reason}") from error
    if len(words) != 1:
        raise InputError(f"--token-file {str(path)!r}: expected one token, found {len(words)} words")
    return words[0]
