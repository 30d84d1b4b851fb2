"""What an OSError means to a person: one place that turns them into our errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from eul_serve.errors import CapacityError, InputError, NotFoundError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LINK = (errno.ELOOP, errno.ENOTDIR)


@contextmanager
def disk_errors(what: str, hint: str = "name what is there") -> Iterator[None]:
    """Turn an OSError into one of ours.

    Args:
        what: What was read or written, for the message.
        hint: What to do where it is missing.

    Raises:
        CapacityError: The disk or a quota is full, or a file too large for its file system.
        NotFoundError: Something is missing.
        InputError: A link stands where none may, or the system refused.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise CapacityError(f"{what}: cannot write: {reason}; free space and run again") from error
        if error.errno == errno.ENOENT:
            raise NotFoundError(f"{what}: not found; {hint}") from error
        if error.errno in _LINK:
            raise InputError(
                f"{what}: found a link or a file in the place of a directory; links are refused"
            ) from error
        raise InputError(f"{what}: {reason}; check its owner and rights") from error
