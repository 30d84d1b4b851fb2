"""A server's audit log: appended to, synced, and never opened by two servers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from eul_serve.append import append_line
from eul_serve.audit.chain import MAX_LINE, START, Entry, read_chain
from eul_serve.errors import CapacityError, InputError
from eul_serve.moment import utc_now


class AuditLog:
    """An open log; closes when the context ends."""

    def __init__(self, path: Path, clock: Callable[[], str] = utc_now) -> None:
        """Open a log, or begin one.

        Args:
            path: The file.
            clock: When an act is, UTC, ISO 8601.

        Raises:
            InputError: It cannot be opened, or another server has it.
            BundleFormatError: It was changed since it was written.
        """
        self._path, self._clock = path, clock
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags, 0o640)
        except OSError as error:
            raise InputError(f"--audit {str(path)!r}: cannot open: {error.strerror}; name another file") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise InputError(f"--audit {str(path)!r}: another server writes it; each needs its own") from error
        self._number, self.head = 0, START
        try:
            for entry in read_chain(path):
                self._number, self.head = entry.number, entry.digest
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def __len__(self) -> int:
        return self._number

    def record(self, act: str, **facts: Any) -> Entry:  # noqa: ANN401  # whatever JSON holds
        """Append one act, whole or not at all, and wait until the disk has it.

        Args:
            act: What was done or refused.
            **facts: With what; never a prompt, an answer or a secret.

        Returns:
            The entry.

        Raises:
            CapacityError: It cannot be written.
        """
        entry = Entry(self._number + 1, self._clock(), act, facts, self.head)
        line = entry.to_line()
        assert len(line) <= MAX_LINE, "an act is a few names and digests"
        try:
            append_line(self._descriptor, line)
        except OSError as error:
            raise CapacityError(
                f"audit log {str(self._path)!r}: cannot write: {error.strerror}; free space and try again"
            ) from error
        self._number, self.head = entry.number, entry.digest
        return entry
