"""The log of a registry: every act, one record each, each with the digest of the one before.

It may have many thousand entries, so whoever appends looks for its end in steps that double, and reads no more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from eul_serve.audit.chain import Entry
from eul_serve.errors import BundleFormatError
from eul_serve.registry.chain import Chain, next_entry, place
from eul_serve.registry.store import Store

_KEY = ("log",)


class ActLog:
    """The append-only log of one registry."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: Entry | None = None
        self._lock = threading.Lock()

    def append(self, act: str, **facts: Any) -> Entry:  # noqa: ANN401  # whatever JSON holds
        """Append one act, whole or not at all.

        Args:
            act: What is done.
            **facts: With what.

        Returns:
            The entry.
        """
        with self._lock:
            while True:
                self._last = self._end()
                entry = next_entry(act, facts, self._last)
                if self._store.create(place(_KEY, entry.number), entry.to_line()):
                    self._last = entry
                    return entry

    def entries(self) -> Iterator[Entry]:
        """Yield all entries, oldest first; BundleFormatError where the past was changed."""
        yield from Chain(self._store, "log", *_KEY).entries()

    def tail(self, count: int) -> tuple[Entry, ...]:
        """Return the last entries, oldest first, without reading those before.

        Args:
            count: How many, at most.

        Returns:
            The entries.

        Raises:
            BundleFormatError: One of them was changed, or does not follow the one before.
        """
        with self._lock:
            end = self._end()
            found = (
                [self._parsed(number) for number in range(max(1, end.number - count + 1), end.number)] if end else []
            )
        entries = [*found, *([end] if end else [])][-count:] if count else []
        for before, entry in pairwise(entries):
            if (entry.number, entry.before) != (before.number + 1, before.digest):
                raise self._changed(entry.number)
        return tuple(entries)

    def _end(self) -> Entry | None:
        """Return the last entry: entries are numbered without a gap, so its number is found by halving."""
        known, step = self._last.number if self._last else 0, 1
        while self._read(known + step) is not None:
            known, step = known + step, step * 2
        missing = known + step
        while missing - known > 1:
            middle = (known + missing) // 2
            known, missing = (middle, missing) if self._read(middle) is not None else (known, middle)
        return self._parsed(known) if known else None

    def _read(self, number: int) -> bytes | None:
        return self._store.read(place(_KEY, number))

    def _parsed(self, number: int) -> Entry:
        if self._last and self._last.number == number:
            return self._last
        entry = Entry.from_line(self._read(number) or b"")
        if entry is None:
            raise self._changed(number)
        return entry

    def _changed(self, number: int) -> BundleFormatError:
        return BundleFormatError(f"{self._store.url}: entry {number} of its log was changed; restore it from a copy")
