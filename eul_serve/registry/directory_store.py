"""A store in a directory, local or shared: files that are staged in `tmp` and appear whole.

registry.json  blobs/  names/  orders/  log/  claims/     as every store has them
locks/  tmp/                                              of writers; `tmp` is on the same file system
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from eul_serve.errors import EulError
from eul_serve.format import FileEntry
from eul_serve.registry.blobs import checked
from eul_serve.registry.disk import disk_errors
from eul_serve.registry.store import MAX_RECORD, Key, Opened
from eul_serve.registry.tree import STAGING, Tree, staging

_BLOBS = ("blobs", "sha256")
_OURS = (STAGING, "locks")


class DirectoryStore:
    """A `Store` in a directory; links in it are never followed."""

    def __init__(self, root: Path) -> None:
        self._tree = Tree(root)

    @property
    def url(self) -> str:
        """Where it is, for messages."""
        return f"registry {str(self._tree.root)!r}"

    def read(self, key: Key) -> bytes | None:
        """Return a record, None where there is none."""
        with disk_errors(f"{self.url}: {'/'.join(key)}"):
            try:
                return self._tree.read(*key, limit=MAX_RECORD)
            except FileNotFoundError:
                return None

    def create(self, key: Key, data: bytes) -> bool:
        """Make a record whole, unless there is one."""
        with disk_errors(self.url), staging(self._tree) as staged:
            staged.add([data], *key)
            try:
                staged.place_new()
            except FileExistsError:
                return self.read(key) == data
        return True

    def remove(self, key: Key) -> None:
        """Remove a record; nothing happens where there is none."""
        with disk_errors(self.url), suppress(FileNotFoundError), self._tree.directory(*key[:-1]) as parent:
            os.unlink(key[-1], dir_fd=parent)
            os.fsync(parent)

    def list(self, *prefix: str) -> list[str]:
        """Return the names directly below a path, sorted."""
        with disk_errors(self.url):
            names = self._tree.list(*prefix)
        return names if prefix else [name for name in names if name not in _OURS]

    def age(self, key: Key) -> float | None:
        """Return how many seconds ago a record was made; None where there is none."""
        with disk_errors(self.url):
            try:
                return self._age(self._now(), *key)
            except FileNotFoundError:
                return None

    def holds(self, name: str, entry: FileEntry) -> bool:
        """Return whether a blob is there and whole: to read it costs less than to write it again."""
        try:
            for _ in checked(self.chunks(name, entry), entry, "blob"):
                pass
        except EulError:
            return False
        return True

    def put(self, name: str, entry: FileEntry, source: Opened) -> None:
        """Store a blob whole."""
        try:
            with disk_errors(self.url), staging(self._tree) as staged:
                staged.add(checked(_apart(source), entry, f"{name}: a file"), *_blob(entry.sha256))
                staged.place()
        except _SourceError as error:
            raise error.reason from error

    def chunks(self, name: str, entry: FileEntry) -> Iterator[bytes]:
        """Yield a blob's bytes as they are stored."""
        with disk_errors(f"{self.url}: {name}: blob {entry.sha256}"):
            yield from self._tree.chunks(*_blob(entry.sha256))

    def blobs(self, names: Iterable[str]) -> Iterator[tuple[str, str, float]]:
        """Yield each blob with its age in seconds; blobs of all names are together."""
        now = self._now()
        for name in self.list(*_BLOBS):
            with suppress(FileNotFoundError):  # another collector was faster
                yield "", f"sha256:{name}", self._age(now, *_BLOBS, name)

    def drop(self, name: str, digest: str) -> None:
        """Remove a blob; nothing happens where there is none."""
        self.remove(_blob(digest))

    def _age(self, now: float, *parts: str) -> float:
        with self._tree.directory(*parts[:-1]) as parent:
            made = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_mtime
        return max(0.0, now - made)

    def _now(self) -> float:
        """Return the time by the clock of the file system, which on a shared one may be another than ours."""
        with self._tree.directory("locks", create=True) as parent:
            flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open("clock", flags, 0o666, dir_fd=parent)
            try:
                os.utime(descriptor)
                return os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)


class _SourceError(Exception):
    """The source broke off: that says nothing about this directory."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _apart(source: Opened) -> Iterator[bytes]:
    """Yield a source's bytes, and tell its failures from those of the disk that is written to."""
    try:
        yield from source()
    except OSError as error:
        raise _SourceError(error) from error


def _blob(digest: str) -> Key:
    return (*_BLOBS, digest.removeprefix("sha256:"))
