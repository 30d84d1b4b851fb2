"""Who uses what in a cache that several processes share.

Each process has one file in `users/`, locked for as long as it lives, that lists the revisions it uses and how many
bytes each has. The system drops the lock of a process that dies, so what it used is free again. All of this happens
under the lock of the cache's room.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections import Counter
from contextlib import suppress

from eul_serve.registry.tree import Tree

FOLDER = "users"
_MOST = 16 << 20


class CacheUsers:
    """What all living processes use, and this one's part of it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._counts: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}
        self._name = f"{secrets.token_hex(16)}.json"
        self._descriptor: int | None = None

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Use nothing any more: whoever makes room next finds the file unlocked."""
        self._counts.clear()
        self._sizes.clear()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor, self._name = None, f"{secrets.token_hex(16)}.json"

    def use(self, digest: str, size: int) -> None:
        """Use a revision, once more where this process uses it already.

        Args:
            digest: The revision, as hex digits.
            size: How many bytes it has, or will have.
        """
        self._counts[digest] += 1
        self._sizes[digest] = size
        self._write()

    def release(self, digest: str, *, all_of_it: bool = False) -> None:
        """Use a revision once less, or no more; nothing happens where this process does not use it."""
        if digest not in self._counts:
            return
        if all_of_it or self._counts[digest] <= 1:
            del self._counts[digest], self._sizes[digest]
        else:
            self._counts[digest] -= 1
        self._write()

    def sizes(self) -> dict[str, int]:
        """Return what anybody uses, with its bytes; forget processes that are gone."""
        found = dict(self._sizes)
        for name in self._tree.list(FOLDER):
            if name != self._name:
                found.update(self._of(name))
        return found

    def _of(self, name: str) -> dict[str, int]:
        with suppress(FileNotFoundError), os.fdopen(self._tree.open(FOLDER, name), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # it lives
                used: dict[str, int] = json.loads(file.read(_MOST) or b"{}")
                return used
            with self._tree.directory(FOLDER) as parent:
                os.unlink(name, dir_fd=parent)
        return {}

    def _write(self) -> None:
        if self._descriptor is None:
            with self._tree.directory(FOLDER, create=True) as parent:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._descriptor = os.open(self._name, flags, 0o600, dir_fd=parent)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        data = json.dumps(self._sizes).encode()
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))
