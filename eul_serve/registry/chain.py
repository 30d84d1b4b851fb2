"""Records that follow one another, each with the digest of the one before: moves of an alias, orders, the log.

Two clients that append at the same time make the same record, so one of them is told that it was too late. What was
read once is not read again, as a record never changes: to look for something new costs one request.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from typing import Any

from eul_serve.audit.chain import START, Entry
from eul_serve.errors import BundleFormatError
from eul_serve.moment import utc_now
from eul_serve.registry.store import Key, Store


class Chain:
    """One chain of a store; safe for several threads."""

    def __init__(self, store: Store, what: str, *key: str) -> None:
        """Take a chain, which may have no entry yet.

        Args:
            store: Where it is.
            what: What it is, for messages.
            *key: Path of its records.
        """
        self._store, self._what, self._key = store, what, key
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries, oldest first.

        Returns:
            The entries.

        Raises:
            BundleFormatError: One of them was changed, or does not follow the one before.
        """
        with self._lock:
            while (data := self._store.read(self._place(len(self._entries) + 1))) is not None:
                self._entries.append(self._follows(data, self._entries[-1] if self._entries else None))
            return tuple(self._entries)

    def append(self, act: str, facts: Mapping[str, Any], after: Entry | None) -> Entry | None:
        """Append an entry.

        Args:
            act: What is done.
            facts: With what; names, digests and reasons.
            after: The entry that it follows; None where it is the first.

        Returns:
            The entry, or None where another client has appended one meanwhile.
        """
        entry = next_entry(act, facts, after)
        return entry if self._store.create(self._place(entry.number), entry.to_line()) else None

    def _place(self, number: int) -> Key:
        return place(self._key, number)

    def _follows(self, data: bytes, before: Entry | None) -> Entry:
        entry = Entry.from_line(data)
        wanted = (before.number + 1, before.digest) if before else (1, START)
        if entry is None or (entry.number, entry.before) != wanted:
            record = "/".join(self._place(wanted[0]))
            raise BundleFormatError(
                f"{self._what}: {record} was changed, or does not follow the entry before it; "
                "restore it from a copy of the registry"
            )
        return entry


def place(key: Key, number: int) -> Key:
    """Return the path of an entry; in the order of their names the entries are in the order of their numbers."""
    return (*key, f"{number:010}.json")


def next_entry(act: str, facts: Mapping[str, Any], after: Entry | None) -> Entry:
    """Return the entry that follows another, at this moment, unlike any that another client makes."""
    number, before = (after.number + 1, after.digest) if after else (1, START)
    # Else two clients that do the same in the same second make the same bytes, and each takes them for its own.
    return Entry(number, utc_now("seconds"), act, {**facts, "id": secrets.token_hex(8)}, before)
