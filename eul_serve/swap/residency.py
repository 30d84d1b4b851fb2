"""Which revisions are in the engine, which of them an alias points to, and who runs on them.

Everything here runs on the event loop, and every decision (move a pointer, admit a request, retire a revision) is
made without an `await` in it, so no two of them can mix. Disk work is done in threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eul_serve.engine.base import Engine, ResidentBundle
from eul_serve.errors import EngineError, EulError
from eul_serve.format import Reference
from eul_serve.metrics import Metrics
from eul_serve.swap.arrival import Store, as_answer, reason_of, retry_after
from eul_serve.swap.canaries import Canaries
from eul_serve.swap.carrier import Carrier
from eul_serve.swap.entry import Entry
from eul_serve.swap.feed import Feed
from eul_serve.swap.orders import KnownOrders
from eul_serve.swap.revision import Action, Event, RevisionState, Stage, advance
from eul_serve.swap.room import Room
from eul_serve.swap.stages import StageCount

_log = logging.getLogger("eul_serve.swap")
_DONE = {
    Action.PULL: Event.VERIFIED,
    Action.LOAD: Event.LOADED,
    Action.PROBE: Event.PASSED,
    Action.UNLOAD: Event.UNLOADED,
}


class Residency:
    """The revisions of one server."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        orders: KnownOrders,
        metrics: Metrics,
        feed: Feed,
        canary_texts: Path | None = None,
    ) -> None:
        self._orders = orders
        self._carrier = Carrier(engine, store, Canaries(engine, canary_texts, feed), metrics)
        self._metrics = metrics
        self._feed = feed
        self._entries: dict[str, Entry] = {}
        self._pointers: dict[str, Entry] = {}
        self._room = Room(engine.info.capacity, self._entries, self._send)
        self._work: set[asyncio.Task[None]] = set()
        self._stages = StageCount(metrics)

    def entries(self) -> list[Entry]:
        """Return everything that is known, in the order in which it was asked for."""
        return list(self._entries.values())

    def entry(self, revision: str) -> Entry | None:
        """Return what is known of a revision."""
        return self._entries.get(revision)

    def pointed(self, reference: Reference) -> Entry | None:
        """Return the entry that a reference points to."""
        return self._pointers.get(str(reference))

    def pointers(self) -> frozenset[str]:
        """Return the references that point to a revision."""
        return frozenset(self._pointers)

    @contextmanager
    def admit(self, entry: Entry) -> Iterator[ResidentBundle]:
        """Run one request on a revision; the revision stays in the engine until the context ends.

        Args:
            entry: The revision's entry.

        Yields:
            The bundle, as the engine knows it.

        Raises:
            EngineError: The revision is not in the engine.
        """
        if not entry.state.admits or entry.resident is None:
            raise EngineError(
                f"bundle {entry.revision} is not in the engine (it is {entry.state.stage.value}); try again"
            )
        self._send(entry, Event.ADMITTED)
        entry.used = time.monotonic()
        try:
            yield entry.resident
        finally:
            self._send(entry, Event.FINISHED)

    async def ensure(self, name: str, revision: str) -> Entry:
        """Return the entry of a revision that is in the engine; bring it in where it is not.

        Args:
            name: A bundle that has the revision; the caller has checked that.
            revision: `sha256:<hex>`.

        Returns:
            An entry that admits requests now.

        Raises:
            BannedError: A person has ordered that nobody may use it.
            EulError: It could not be pulled, verified or loaded, or there is no room.
        """
        while True:
            self._orders.check(name, revision)
            entry = self._entries.get(revision)
            if entry is None or not entry.state.admits:
                entry = await self._start(name, revision)
            await entry.wait_while(lambda state: state.arrives)
            if entry.state.admits:
                return entry
            if entry.error is not None and entry.state.stage is Stage.FAILED:
                raise as_answer(revision, entry.error)

    def point(self, reference: Reference, entry: Entry) -> None:
        """Move a reference to a revision that is in the engine; the old revision drains when nobody else needs it."""
        key = str(reference)
        old = self._pointers.get(key)
        if old is entry:
            return
        with self._metrics.swap_stage("activate"):
            if entry.state.stage is Stage.WARM:
                self._send(entry, Event.POINTED)
            entry.pointers.add(key)
            self._pointers[key] = entry
            if old is not None:
                self._release(old, key)

    def unpoint(self, key: str) -> None:
        """Take a reference away; its revision drains when nobody else needs it."""
        self._release(self._pointers.pop(key), key)

    def check(self, name: str, revision: str) -> None:
        """Return where nobody has ordered that a revision may not be used; else raise BannedError."""
        self._orders.check(name, revision)

    def withdraw(self, revision: str) -> list[str]:
        """Let nothing run on a revision from now on; it leaves the engine when what runs on it has ended.

        Args:
            revision: A revision that `ensure` refuses.

        Returns:
            What it served: the references that pointed to it, or itself where it took requests without one.
        """
        entry = self._entries.get(revision)
        if entry is None or not entry.state.admits:
            return []  # on its way in: that ends with a failure
        served = sorted(entry.pointers) or [f"{entry.name}@{revision}"]
        for key in tuple(entry.pointers):
            self.unpoint(key)
        if entry.state.admits:
            self._send(entry, Event.RETIRED)
        return served

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._work:
            await asyncio.wait(tuple(self._work))
        self._carrier.close()

    async def _start(self, name: str, revision: str) -> Entry:
        async with self._room.queue:
            entry = self._entries.get(revision)
            if entry is not None:
                await entry.wait_while(lambda state: state.leaves)
            if entry is None or entry.state.stage is Stage.GONE:
                entry = self._entries[revision] = Entry(name=name, revision=revision)
                self._stages.count(entry, known=self._entries.get(entry.revision) is entry)
            elif entry.state.admits or entry.state.arrives:
                return entry
            elif entry.state.stage is Stage.FAILED and time.monotonic() < entry.retry_at and entry.error is not None:
                raise as_answer(revision, entry.error)
            if not entry.state.holds_place:
                await self._room.free(entry)
            self._send(entry, Event.START)
            return entry

    def _release(self, entry: Entry, key: str) -> None:
        entry.pointers.discard(key)
        if not entry.pointers and entry.state.stage is Stage.ACTIVE:
            self._send(entry, Event.UNPOINTED)
            self._send(entry, Event.RETIRED)

    def _send(self, entry: Entry, event: Event) -> None:
        """Advance an entry and start what is to be done."""
        before = entry.state
        entry.state, actions = advance(before, event)
        if event is Event.RETIRED:
            entry.drains_since = time.monotonic()
        for action in actions:
            task = asyncio.create_task(self._act(entry, action))
            self._work.add(task)
            task.add_done_callback(self._work.discard)
        if entry.state.stage in (Stage.GONE, Stage.FAILED):
            self._carrier.release(entry)
        if entry.state.stage is Stage.GONE and self._entries.get(entry.revision) is entry:
            del self._entries[entry.revision]
        self._tell(entry, before)

    def _tell(self, entry: Entry, before: RevisionState) -> None:
        """Wake whoever waits for a change, and tell everybody of a new stage."""
        moved = (entry.state.stage, entry.state.under_way) != (before.stage, before.under_way)
        if moved:
            entry.wake()
        if moved or entry.state.in_flight < before.in_flight:
            self._room.changed.set()
        if entry.state.stage is not before.stage:
            self._stages.count(entry, known=self._entries.get(entry.revision) is entry)
            self._feed.tell("stage", name=entry.name, revision=entry.revision, stage=entry.state.stage.value)

    async def _act(self, entry: Entry, action: Action) -> None:
        """Carry one action out, and send what came of it."""
        after_failure = entry.state.stage is Stage.FAILED
        try:
            await self._carrier.carry(entry, action, lambda: self._send(entry, Event.PULLED))
            if action is not Action.UNLOAD:  # it may have been ordered meanwhile
                self._orders.check(entry.name, entry.revision)
        except Exception as error:  # whatever it is, the server goes on, and what failed is not served
            if action is not Action.UNLOAD:
                self._fail(entry, error)
                return
            _log.warning("bundle %s: not removed from the engine: %s", entry.revision, error)
        if action is Action.PROBE:
            entry.error, entry.failures, entry.since = None, 0, time.monotonic()
        if not after_failure:
            self._send(entry, _DONE[action])

    def _fail(self, entry: Entry, error: Exception) -> None:
        if not isinstance(error, EulError):
            _log.exception("bundle %s: unexpected failure", entry.revision, exc_info=error)
            error = EngineError(f"bundle {entry.revision} could not be taken up; the server's log says why")
        entry.error = error
        entry.failures += 1
        entry.retry_at = time.monotonic() + retry_after(entry.failures)
        self._metrics.verification_failures.labels(reason=reason_of(error)).inc()
        _log.warning("bundle %s@%s not taken up (attempt %d): %s", entry.name, entry.revision, entry.failures, error)
        self._send(entry, Event.FAILED)
