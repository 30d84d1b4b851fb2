"""Output directories of the trainer's commands: refused before any work when in use, written whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eul_serve.errors import CapacityError, InputError


def check_output(out: Path) -> None:
    """Refuse an output directory that holds something, before any work is done.

    Args:
        out: The directory.

    Raises:
        InputError: It exists and is not an empty directory.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"output {str(out)!r}: expected a new or empty directory; name another one or remove it")


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """Give a hidden directory beside an output, to be filled and moved to its place by the caller.

    Args:
        out: The output directory.

    Yields:
        The hidden directory; what is left of it at the end is removed.

    Raises:
        CapacityError: The disk is full, or the files cannot be written.
    """
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        yield part
    except OSError as error:
        raise CapacityError(
            f"output {str(out)!r}: cannot write: {error.strerror}; free space or name another"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
