"""How many bytes a cache may have, and what leaves for what comes: the least recently used that nobody uses.

What leaves is renamed into `tmp` and removed there, so that nobody finds half of it. The time of a revision's last use
is that of its directory. One lock, `locks/room`, is held by whoever counts, removes or says what it uses.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from eul_serve.errors import CapacityError
from eul_serve.registry.cache_users import CacheUsers
from eul_serve.registry.tree import Tree

_GONE = ".gone"


class CacheRoom:
    """The bytes of one cache; safe for several threads and processes."""

    def __init__(self, tree: Tree, max_bytes: int | None) -> None:
        """Take the directory.

        Args:
            tree: The cache's directory.
            max_bytes: How many bytes all revisions together may have; None sets no bound.
        """
        self._tree, self._max_bytes = tree, max_bytes
        self._users = CacheUsers(tree)

    def use(self, digest: str) -> None:
        """Say that a revision that is here is used now, and by this process until it is released."""
        path = self._path(digest)
        with self._tree.locked("locks", "room"):
            self._users.use(digest, _size(path))
            mark_used(path)

    def make(self, digest: str, size: int) -> None:
        """Make room for a revision, and use it; the caller holds its lock.

        Args:
            digest: The revision, as hex digits.
            size: Its bytes.

        Raises:
            CapacityError: There is not so much room, or what there is is in use.
        """
        if self._max_bytes is not None and size > self._max_bytes:
            raise CapacityError(
                f"bundle sha256:{digest}: has {size} bytes, and the cache may have {self._max_bytes}; "
                "start the server with a higher --cache-gib"
            )
        with self._tree.locked("locks", "room"):
            self._sweep(digest)
            if self._max_bytes is not None:
                self._evict(digest, size, self._max_bytes)
            self._users.use(digest, size)

    def release(self, digest: str) -> None:
        """Use a revision once less."""
        with self._tree.locked("locks", "room"):
            self._users.release(digest)

    def close(self) -> None:
        """Use nothing any more."""
        self._users.close()

    def remove(self, digest: str) -> bool:
        """Remove a revision, whoever uses it; the caller holds its lock. Return whether there was one."""
        with self._tree.locked("locks", "room"):
            self._users.release(digest, all_of_it=True)
            return self._drop(digest)

    def _evict(self, coming: str, size: int, most: int) -> None:
        used = self._users.sizes()
        here = {digest: _size(self._path(digest)) for digest in self._tree.list("sha256")}
        # What others are bringing in counts with what it will have.
        total = size + sum(bytes_ for digest, bytes_ in {**used, **here}.items() if digest != coming)
        for digest in sorted(here.keys() - used.keys() - {coming}, key=self._used_at):
            if total <= most:
                return
            if self._drop_unlocked(digest):
                total -= here[digest]
        if total > most:
            raise CapacityError(
                f"bundle sha256:{coming}: has {size} bytes, and of the {most} that the cache may have {total - size} "
                "are in use; start the server with a higher --cache-gib, or let its policy name fewer bundles"
            )

    def _drop_unlocked(self, digest: str) -> bool:
        """Remove a revision unless somebody pulls or verifies it at this moment."""
        with suppress(BlockingIOError), self._tree.locked("locks", f"{digest}.lock", wait=False):
            return self._drop(digest)
        return False

    def _drop(self, digest: str) -> bool:
        gone = self._tree.root / "tmp" / f"{digest}{_GONE}"
        with self._tree.directory("tmp", create=True):
            remove(gone)
        try:
            os.rename(self._path(digest), gone)
        except FileNotFoundError:
            return False
        remove(gone)
        return True

    def _sweep(self, coming: str) -> None:
        """Remove what killed processes left on their way in or out."""
        for name in self._tree.list("tmp"):
            if name.endswith(_GONE):
                remove(self._tree.root / "tmp" / name)
            elif name != coming:
                with suppress(BlockingIOError), self._tree.locked("locks", f"{name}.lock", wait=False):
                    remove(self._tree.root / "tmp" / name)

    def _used_at(self, digest: str) -> int:
        with suppress(FileNotFoundError):
            return self._path(digest).lstat().st_mtime_ns
        return 0

    def _path(self, digest: str) -> Path:
        return self._tree.root / "sha256" / digest


def remove(path: Path) -> None:
    """Remove a file, a link or a directory with all that is in it; nothing happens where there is none."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def mark_used(path: Path) -> None:
    """Note on a revision's directory that it is used now."""
    now = time.time_ns()  # the system's own stamps may be the same for some milliseconds
    os.utime(path, ns=(now, now))


def _size(path: Path) -> int:
    """Return the bytes of the files in a directory, which may go meanwhile."""
    with suppress(OSError):
        return sum(file.lstat().st_size for file in path.iterdir())
    return 0
