"""A store in memory whose clients can be told to fail or to die before or after any one operation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from eul_serve.errors import BusyError, CapacityError, NotFoundError
from eul_serve.format import FileEntry
from eul_serve.registry.blobs import checked
from eul_serve.registry.store import Key, Opened

Fault = Literal["die before", "die after", "refuse", "lose the answer", "twice"]
Turn = Callable[[str], Fault | None]
"""Waits until a client may do its next operation, and says what goes wrong with it."""
T = TypeVar("T")


class Died(BaseException):
    """A client was killed; nothing that it does afterwards reaches the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one operation changed."""

    client: int
    """Whose operation."""
    key: Key
    """Path of the record; of a blob `("blobs", digest)`."""
    before: bytes | None
    """What was there; None where nothing was."""
    after: bytes | None
    """What is there; None where nothing is."""


@dataclass(slots=True)
class Place:
    """What all clients of one store share."""

    watch: Callable[[Change], None] = lambda change: None
    """Told of each change, at the moment at which it is made."""
    exclusive: bool = True
    """Whether `create` leaves alone what is there; False breaks it on purpose."""
    now: float = 0.0
    """The store's clock, in seconds."""
    records: dict[Key, tuple[bytes, float]] = field(default_factory=dict)
    """Records with the time at which they were made."""
    blobs: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    """Blobs by digest, with the time at which they were stored."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held for each operation."""

    def change(self, client: int, key: Key, data: bytes | None) -> None:
        """Put bytes in the place of what is there, or nothing with None."""
        blob = key[0] == "blobs"
        before = self.blobs.get(key[1]) if blob else self.records.get(key)
        if before is None and data is None:
            return
        if data is None:
            _ = self.blobs.pop(key[1]) if blob else self.records.pop(key)
        elif blob:
            self.blobs[key[1]] = data, self.now
        else:
            self.records[key] = data, self.now
        self.watch(Change(client=client, key=key, before=before[0] if before else None, after=data))


class MemoryStore:
    """One client's way to a place: a `Store`."""

    def __init__(self, place: Place, client: int = 0, turn: Turn = lambda what: None) -> None:
        self.place, self.client, self._turn = place, client, turn
        self.dead = False

    @property
    def url(self) -> str:
        """Where it is, for messages."""
        return "memory"

    def read(self, key: Key) -> bytes | None:
        """Return a record, None where there is none."""
        return self._do(f"read {'/'.join(key)}", lambda: self.place.records.get(key, (None, 0.0))[0])

    def create(self, key: Key, data: bytes) -> bool:
        """Make a record whole, unless there is one."""

        def make() -> bool:
            found = self.place.records.get(key)
            if found is None or (not self.place.exclusive and found[0] != data):
                self.place.change(self.client, key, data)
                return True
            return found[0] == data

        return self._do(f"create {'/'.join(key)}", make)

    def remove(self, key: Key) -> None:
        """Remove a record; nothing happens where there is none."""
        self._do(f"remove {'/'.join(key)}", lambda: self.place.change(self.client, key, None))

    def list(self, *prefix: str) -> list[str]:
        """Return the names directly below a path, sorted."""
        depth = len(prefix)

        def found() -> set[str]:
            return {key[depth] for key in self.place.records if len(key) > depth and key[:depth] == prefix}

        return sorted(self._do(f"list {'/'.join(prefix)}", found))

    def age(self, key: Key) -> float | None:
        """Return how many seconds ago a record was made; None where there is none."""

        def age() -> float | None:
            found = self.place.records.get(key)
            return self.place.now - found[1] if found else None

        return self._do(f"age {'/'.join(key)}", age)

    def holds(self, name: str, entry: FileEntry) -> bool:
        """Return whether a blob is there: it is whole wherever it is."""
        return self._do(f"holds {entry.sha256}", lambda: entry.sha256 in self.place.blobs)

    def put(self, name: str, entry: FileEntry, source: Opened) -> None:
        """Store a blob whole."""
        data = b"".join(checked(source(), entry, name))
        self._do(f"put {entry.sha256}", lambda: self.place.change(self.client, ("blobs", entry.sha256), data))

    def chunks(self, name: str, entry: FileEntry) -> Iterator[bytes]:
        """Yield a blob's bytes."""
        found = self._do(f"chunks {entry.sha256}", lambda: self.place.blobs.get(entry.sha256))
        if found is None:
            raise NotFoundError(f"{name}: blob {entry.sha256}: missing; publish the bundle again")
        yield found[0]

    def blobs(self, names: Iterable[str]) -> Iterator[tuple[str, str, float]]:
        """Yield each blob with its age in seconds; blobs of all names are together."""
        now, found = self._do("blobs", lambda: (self.place.now, list(self.place.blobs.items())))
        yield from (("", digest, now - made) for digest, (_, made) in found)

    def drop(self, name: str, digest: str) -> None:
        """Remove a blob; nothing happens where there is none."""
        self._do(f"drop {digest}", lambda: self.place.change(self.client, ("blobs", digest), None))

    def _do(self, what: str, work: Callable[[], T]) -> T:
        fault = self._next(what)
        if fault == "die before":
            self._die()
        if fault == "refuse":
            raise CapacityError(f"memory: {what}: the store refuses on purpose; run it again")
        result = self._now(work)
        if fault == "die after":
            self._die()
        if fault == "lose the answer":
            raise BusyError(f"memory: {what}: its answer was lost on purpose; run it again")
        if fault == "twice":
            self._next(f"{what} again")
            result = self._now(work)
        return result

    def _next(self, what: str) -> Fault | None:
        fault = None if self.dead else self._turn(what)
        if self.dead:
            raise Died
        return fault

    def _now(self, work: Callable[[], T]) -> T:
        with self.place.lock:
            return work()

    def _die(self) -> None:
        self.dead = True
        raise Died
