"""Events of a file system: that something changed in a directory, a moment later and without looking."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from eul_serve.errors import InputError, NotFoundError
from eul_serve.registry.disk import disk_errors

STEP_MS, MOST_MS = 20, 200
"""Changes that come within so many milliseconds of each other are told as one, and no later than this."""
LOOK_MS = 5_000
"""How often it is looked whether the directory is still the same one."""


@runtime_checkable
class Eventful(Protocol):
    """A registry that can tell when something changed in it."""

    def changes(self) -> AsyncIterator[None]:
        """Yield after changes; ends where no more can be told, and is then to be called again."""
        ...


async def removals(folder: Path) -> AsyncIterator[None]:
    """Yield whenever names have left a directory.

    A file system that other machines write to (NFS) tells of our own changes alone, without an error.

    Args:
        folder: The directory; nothing below its subdirectories is told.

    Yields:
        Nothing but that it happened; ends when another directory stands in its place.

    Raises:
        InputError: The package is missing, or the system has no more watches to give.
        NotFoundError: There is no such directory.
    """
    try:
        from watchfiles import Change, awatch
    except ModuleNotFoundError as error:
        raise InputError(f"file events need the package {error.name}: pip install 'eul-serve[server]'") from error

    with disk_errors(f"events of {str(folder)!r}"):
        first = _identity(folder)
        async for changes in awatch(
            folder,
            watch_filter=lambda change, _: change is Change.deleted,
            debounce=MOST_MS,
            step=STEP_MS,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
            recursive=False,
            force_polling=False,
            debug=False,
            ignore_permission_denied=False,
        ):
            if _identity(folder) != first:
                return
            if changes:
                yield


def _identity(folder: Path) -> tuple[int, int]:
    try:
        found = folder.stat()
    except FileNotFoundError as error:
        raise NotFoundError(f"events of {str(folder)!r}: no such directory") from error
    return found.st_dev, found.st_ino
