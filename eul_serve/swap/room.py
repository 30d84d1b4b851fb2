"""The engine's places for revisions: who leaves when another one is asked for, and who waits until one can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from eul_serve.errors import CapacityError
from eul_serve.swap.entry import Entry
from eul_serve.swap.revision import Event, Stage

STAY_SECONDS = 2.0
"""How long a revision that runs requests may stay while another one wants its place."""


class Room:
    """The places of one engine; lives on its event loop."""

    def __init__(self, places: int, entries: Mapping[str, Entry], send: Callable[[Entry, Event], None]) -> None:
        """Take the places.

        Args:
            places: How many revisions the engine holds.
            entries: What is known, by revision; changed by its owner.
            send: Advances an entry.
        """
        self._places, self._entries, self._send = places, entries, send
        self.queue = asyncio.Lock()
        """Held by whoever frees a place, so that revisions come in in the order in which they were asked for."""
        self.changed = asyncio.Event()
        """Set by the owner when a request ended or an entry changed its stage."""

    async def free(self, wanted: Entry) -> None:
        """Return when there is a free place; revisions that nobody points to leave, the least recently used first.

        Where all of them run requests, the one that has been here longest takes no more after its stay, and leaves when
        those that it has are done. Called under `queue`.

        Args:
            wanted: The revision that needs a place; it is given up where there is none.

        Raises:
            CapacityError: Aliases hold all places.
        """
        try:
            while sum(entry.state.holds_place for entry in self._entries.values()) >= self._places:
                await self._step(wanted)
        except BaseException:
            if wanted.state.stage is Stage.ANNOUNCED:
                self._send(wanted, Event.RETIRED)
            raise

    async def _step(self, wanted: Entry) -> None:
        here = [entry for entry in self._entries.values() if entry.state.stage is Stage.WARM]
        idle = [entry for entry in here if not entry.state.in_flight]
        if idle:
            self._send(min(idle, key=lambda entry: entry.used), Event.RETIRED)
        elif any(entry.state.arrives or entry.state.stage is Stage.DRAINING for entry in self._entries.values()):
            await self._change()
        elif here:
            await self._after_its_stay(min(here, key=lambda entry: entry.since))
        else:
            raise CapacityError(
                f"bundle {wanted.revision}: all {self._places} places of the engine are held by aliases; "
                "ask the operator for a higher --capacity"
            )

    async def _after_its_stay(self, entry: Entry) -> None:
        left = entry.since + STAY_SECONDS - time.monotonic()
        if left <= 0:
            self._send(entry, Event.RETIRED)
        else:
            await self._change(left)

    async def _change(self, seconds: float | None = None) -> None:
        """Return when something changed, or after a time."""
        self.changed.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.changed.wait(), seconds)
