"""Objects on a file system of fsspec, through what all of them can do."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eul_serve.errors import NotFoundError
from eul_serve.format import FileEntry
from eul_serve.registry.blobs import checked
from eul_serve.registry.disk import disk_errors
from eul_serve.registry.object_errors import failure_codes, object_errors
from eul_serve.registry.objects import OWN, Stat
from eul_serve.registry.store import Opened

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_CLOCK = f"{OWN}clock"
_CLOCK_SECONDS = 60.0
"""How long one look at the store's clock is good for."""
_MADE = ("mtime", "last_modified", "created")
_MEMORY = threading.RLock()


class FsspecObjects:
    """Objects at Google, at Azure, or in the memory of this process."""

    def __init__(self, system: AbstractFileSystem, root: str, where: str) -> None:
        """Name a place.

        Args:
            system: A file system of fsspec that keeps no listings.
            root: Its path of the root.
            where: The URL, for messages.
        """
        self._system, self._root, self._where = system, root, where
        self._in_memory = type(system).__name__ == "MemoryFileSystem"
        # What looks atomic in memory is two steps, and readers of one file share its position.
        self._turn: AbstractContextManager[Any] = _MEMORY if self._in_memory else nullcontext()
        self._seen = self._in_memory
        self._clock: tuple[float, float] | None = None

    def require(self) -> None:
        """Raise NotFoundError where the bucket is not there."""
        if self._seen:
            return
        with object_errors(self._where):
            self._seen = self._system.exists(self._root.split("/", 1)[0])
        if not self._seen:
            raise NotFoundError(f"{self._where}: there is no such bucket; make it, or name another")

    def read(self, path: str, start: int, end: int) -> bytes:
        """Return the bytes of a range, as far as there are any."""
        with object_errors(self._where), self._turn:
            try:
                return bytes(self._system.cat_file(self._at(path), start=start, end=end))
            except Exception as error:
                if "416" in failure_codes(error):  # nothing in that range: an empty object
                    return b""
                raise

    def create(self, path: str, data: bytes) -> None:
        """Make an object whole, or raise FileExistsError."""
        with object_errors(self._where), self._turn:
            self._system.pipe_file(self._at(path), data, mode="create")

    def remove(self, path: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with suppress(FileNotFoundError), object_errors(self._where), self._turn:
            self._system.rm_file(self._at(path))

    def children(self, path: str) -> list[str]:
        """Return the names directly below a path."""
        return [info["name"].rstrip("/").rsplit("/", 1)[-1] for info in self._listed(path)]

    def stat(self, path: str) -> Stat:
        """Return what is known of an object; no digest is kept here."""
        with object_errors(self._where), self._turn:
            info = self._system.info(self._at(path))
        if info["type"] != "file":
            raise FileNotFoundError(path)
        return Stat(size=int(info["size"]), age=max(0.0, self._now() - _made(info)), digest=None)

    def below(self, path: str) -> Iterator[tuple[str, float]]:
        """Yield the objects directly below a path, from one listing."""
        infos = [info for info in self._listed(path) if info["type"] == "file"]
        now = self._now() if infos else 0.0
        for info in infos:
            yield info["name"].rsplit("/", 1)[-1], max(0.0, now - _made(info))

    def upload(self, path: str, entry: FileEntry, source: Opened) -> None:
        """Store an object whole: its bytes are verified in a temporary file before the first is sent."""
        with tempfile.NamedTemporaryFile(prefix="eul-") as file:
            for data in checked(source(), entry, f"{self._where}: file"):
                with disk_errors("the temporary directory (TMPDIR)"):
                    file.write(data)
            with disk_errors("the temporary directory (TMPDIR)"):
                file.flush()
            with object_errors(self._where), self._turn:
                self._system.put_file(file.name, self._at(path))

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _listed(self, path: str) -> list[dict[str, Any]]:
        try:
            with object_errors(self._where), self._turn:
                found = self._system.ls(self._at(path), detail=True)
        except FileNotFoundError:
            self.require()
            return []
        # Some list an object as what is below itself.
        return [info for info in found if info["name"].strip("/") != self._at(path).strip("/")]

    def _now(self) -> float:
        """Return the time by the store's clock: of an object just written, and counted on from there for a minute."""
        if self._in_memory:
            return time.time()
        if self._clock is None or time.monotonic() - self._clock[1] > _CLOCK_SECONDS:
            with object_errors(self._where):
                self._system.pipe_file(self._at(_CLOCK), b"")
                self._clock = _made(self._system.info(self._at(_CLOCK))), time.monotonic()
        written, then = self._clock
        return written + time.monotonic() - then


def _made(info: dict[str, Any]) -> float:
    """Return when an object was written, in seconds since 1970; each file system has its own word for it."""
    made = next(info[field] for field in _MADE if info.get(field) is not None)
    return made.timestamp() if isinstance(made, datetime) else float(made)
