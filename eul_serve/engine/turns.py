"""Whose bundle has a slot: requests for more bundles than there are slots take turns, so that none waits for ever.

vLLM's scheduler passes over a request whose bundle has no slot for as long as the running ones use all slots. Under
steady traffic for other bundles that is for ever. Here a request goes to vLLM only when its bundle has a slot. While
somebody waits, a bundle that has had its turn takes up no new requests; those it has finish, the slot comes free, and
the bundle that has waited longest gets it. A pinned bundle keeps its slot, and never waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from eul_serve.errors import CapacityError

Clock = Callable[[], float]


@dataclass(slots=True)
class _Turn:
    since: float
    running: int = 0


class Turns:
    """The slots of one engine; lives on its event loop."""

    def __init__(self, slots: int, seconds: float, clock: Clock = time.monotonic) -> None:
        """Start with free slots.

        Args:
            slots: Bundles that can be in one batch.
            seconds: How long a bundle takes up requests while others wait for a slot.
            clock: The time, in seconds.
        """
        self._slots, self._seconds, self._clock = slots, seconds, clock
        self._holders: dict[int, _Turn] = {}
        self._pinned: set[int] = set()
        self._queues: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return sum(len(queue) for queue in self._queues.values())

    @asynccontextmanager
    async def turn(self, bundle: int) -> AsyncIterator[None]:
        """Hold a place in a bundle's slot; waits until the bundle has one.

        Args:
            bundle: Adapter id of the bundle.

        Yields:
            Nothing.
        """
        if self._may_run(bundle):
            self._start(bundle)
        else:
            await self._wait(bundle)
        try:
            yield
        finally:
            self._finish(bundle)

    async def pin(self, bundle: int) -> None:
        """Let a bundle keep its slot; waits until the bundle has one. Pinning it again changes nothing.

        Args:
            bundle: Adapter id of the bundle.

        Raises:
            CapacityError: No slot would be left for other bundles.
        """
        if bundle in self._pinned:
            return
        if len(self._pinned) >= self._slots - 1:
            raise CapacityError(
                f"pin: expected at most {self._slots - 1} pinned bundles, so that one of {self._slots} slots is left "
                "for all others; unpin another, or start the server with more --slots"
            )
        self._pinned.add(bundle)
        try:
            async with self.turn(bundle):
                pass
        except BaseException:
            self.unpin(bundle)
            raise

    def unpin(self, bundle: int) -> None:
        """Let a bundle's slot go once nothing runs in it; nothing happens where it is not pinned."""
        self._pinned.discard(bundle)
        held = self._holders.get(bundle)
        if held is not None and not held.running:
            self._release(bundle)

    def _may_run(self, bundle: int) -> bool:
        held = self._holders.get(bundle)
        if held is None:
            return not self._queues and len(self._holders) < self._slots
        return bundle in self._pinned or not self._queues or self._clock() - held.since < self._seconds

    def _start(self, bundle: int) -> None:
        held = self._holders.setdefault(bundle, _Turn(self._clock()))
        held.running += 1

    async def _wait(self, bundle: int) -> None:
        future = asyncio.get_running_loop().create_future()
        self._queues.setdefault(bundle, deque()).append(future)
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                self._finish(bundle)  # the turn came in the same moment as the cancellation
            else:
                self._leave(bundle, future)
            raise

    def _leave(self, bundle: int, future: asyncio.Future[None]) -> None:
        queue = self._queues[bundle]
        queue.remove(future)
        if not queue:
            del self._queues[bundle]

    def _finish(self, bundle: int) -> None:
        held = self._holders[bundle]
        held.running -= 1
        if not held.running and bundle not in self._pinned:
            self._release(bundle)

    def _release(self, bundle: int) -> None:
        del self._holders[bundle]
        while self._queues and len(self._holders) < self._slots:
            self._admit()

    def _admit(self) -> None:
        """Give a free slot to the bundle that has waited longest, with all its requests."""
        bundle, queue = self._queues.popitem(last=False)
        for future in queue:
            if not future.done():
                self._start(bundle)
                future.set_result(None)
