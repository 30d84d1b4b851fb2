"""Output directories of the trainer's commands: refused before any work when in use, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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


def check_apart(out: Path, path: Path, option: str) -> None:
    """Refuse a place inside of the output, which must be empty when the work is done.

    Args:
        out: The output directory.
        path: The place.
        option: The option that named it.

    Raises:
        InputError: It is the output or below it.
    """
    inner, outer = path.absolute(), out.absolute()
    if outer == inner or outer in inner.parents:
        raise InputError(f"{option} {str(path)!r}: expected a place outside of the output {str(out)!r}; name another")


def replace_file(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a file whole or not at all, so that even a power cut leaves the old one or the new one.

    Args:
        path: The file; its directory is made where it is not there.
        text: Its contents.
        mode: Who may use it, less what the umask takes away.

    Raises:
        CapacityError: The disk is full, or the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # what a killed writer left keeps its own mode
        with open(part, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise CapacityError(
            f"file {str(path)!r}: cannot write: {error.strerror}; free space or name another"
        ) from error


def write_files(out: Path, files: Mapping[str, str]) -> None:
    """Write text files into a new directory, all of them or none.

    Args:
        out: The directory.
        files: Text by file name.

    Raises:
        CapacityError: The disk is full, or the files cannot be written.
    """
    with unfinished(out) as part:
        for name, text in files.items():
            (part / name).write_text(text, encoding="utf-8")
        os.replace(part, out)


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
