"""A directory tree in which no link is ever followed and every file appears whole.

Each component is opened relative to its parent with `O_NOFOLLOW`, so a link planted anywhere below the root is an
error and not a way out. Writers stage files in `tmp/` and rename them; the rename is the moment they exist.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eul_serve.errors import BundleFormatError
from eul_serve.registry.writing import write_down

CHUNK_BYTES = 1 << 20
STAGING = "tmp"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """Files below one root. Paths are tuples of plain names; errors are OSErrors, which the caller names."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def directory(self, *parts: str, create: bool = False) -> Iterator[int]:
        """Open a directory below the root, and close it again."""
        if create:
            self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root, _DIRECTORY)
        try:
            for part in parts:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                child = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = child
            yield descriptor
        finally:
            os.close(descriptor)

    def open(self, *parts: str) -> int:
        """Open a regular file for reading; the caller closes the descriptor."""
        with self.directory(*parts[:-1]) as parent:
            descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file")
        return descriptor

    def chunks(self, *parts: str) -> Iterator[bytes]:
        """Yield the bytes of a file."""
        with os.fdopen(self.open(*parts), "rb") as file:
            while data := file.read(CHUNK_BYTES):
                yield data

    def read(self, *parts: str, limit: int) -> bytes:
        """Return the bytes of a small file, or raise BundleFormatError where it has more than `limit`."""
        with os.fdopen(self.open(*parts), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise BundleFormatError(f"{'/'.join(parts)}: expected at most {limit} bytes")
        return data

    def list(self, *parts: str) -> list[str]:
        """Return the names in a directory, sorted; none where it does not exist."""
        with suppress(FileNotFoundError), self.directory(*parts) as descriptor:
            return sorted(os.listdir(descriptor))
        return []

    @contextmanager
    def locked(self, *parts: str, shared: bool = False, wait: bool = True) -> Iterator[int]:
        """Hold a lock file; the system drops the lock of a process that dies.

        Args:
            *parts: Its path.
            shared: Whether others may share it.
            wait: Whether to wait for it; else BlockingIOError is raised where somebody has it.

        Yields:
            Its descriptor.
        """
        with self.directory(*parts[:-1], create=True) as parent:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(parts[-1], flags, 0o666, dir_fd=parent)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            yield descriptor
        finally:
            os.close(descriptor)


class Staging:
    """Files that one writer has prepared in `tmp/` and not yet put in their places; removed when it ends."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._waiting: list[tuple[str, tuple[str, ...]]] = []

    def add(self, chunks: Iterable[bytes], *parts: str) -> None:
        """Write a file's bytes to disk, to be put at `parts` by `place`."""
        part = f"{secrets.token_hex(16)}.part"
        with self._tree.directory(STAGING, create=True) as parent:
            descriptor = os.open(part, _NEW, 0o666, dir_fd=parent)
        self._waiting.append((part, parts))
        write_down(descriptor, chunks)

    def place(self) -> None:
        """Rename the staged files into their places, in the order they were added."""
        while self._waiting:
            part, parts = self._waiting[0]
            with (
                self._tree.directory(STAGING) as source,
                self._tree.directory(*parts[:-1], create=True) as target,
            ):
                os.rename(part, parts[-1], src_dir_fd=source, dst_dir_fd=target)
                self._waiting.pop(0)
                os.fsync(target)

    def place_new(self) -> None:
        """Put the one staged file into its place, or raise FileExistsError where there is a file."""
        ((part, parts),) = self._waiting
        with (
            self._tree.directory(STAGING) as source,
            self._tree.directory(*parts[:-1], create=True) as target,
        ):
            try:
                # A link, unlike a rename, never takes the place of another file.
                os.link(part, parts[-1], src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._rename_new(source, part, target, parts[-1])
            os.fsync(target)

    def _rename_new(self, source: int, part: str, target: int, name: str) -> None:
        """Do the same on a file system that has no hard links, where all clients see each other's locks."""
        with self._tree.locked("locks", "create"):
            with suppress(FileNotFoundError):
                os.stat(name, dir_fd=target, follow_symlinks=False)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            os.rename(part, name, src_dir_fd=source, dst_dir_fd=target)

    def discard(self) -> None:
        """Remove what was staged and not placed."""
        with suppress(OSError), self._tree.directory(STAGING) as parent:
            for part, _ in self._waiting:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=parent)
        self._waiting.clear()


@contextmanager
def staging(tree: Tree) -> Iterator[Staging]:
    """Prepare files as one of several writers; clear what a killed one left, when no other is at work."""
    with tree.locked("locks", "writers", shared=True) as lock:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sweep(tree)
        # Where the attempt above failed, the system may have dropped the shared lock: take it (again).
        fcntl.flock(lock, fcntl.LOCK_SH)
        staged = Staging(tree)
        try:
            yield staged
        finally:
            staged.discard()


def _sweep(tree: Tree) -> None:
    with suppress(FileNotFoundError), tree.directory(STAGING) as parent:
        for name in os.listdir(parent):
            with suppress(OSError):
                os.unlink(name, dir_fd=parent)
