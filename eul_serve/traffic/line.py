"""The line in front of the engine: which tenant's request is next, and when it is better to say no at once.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): a request's start tag is the later of the line's virtual
time and its tenant's last finish tag; its finish tag is that plus its tokens over the tenant's priority. The lowest
start tag is next. A tenant that sends a thousand requests waits behind itself, and one that sends its first goes ahead
of them; over time each gets tokens in proportion to its priority, and nobody starves.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from eul_serve.errors import BusyError, InputError

_SMOOTHING = 0.2
"""Weight of the newest interval between two requests that left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimits:
    """How long the line may get."""

    running: int = 64
    """Requests that the engine runs at once, 1 or more."""
    seconds: float = 30.0
    """Longest wait in seconds; a request that would wait longer is told so when it comes."""

    def __post_init__(self) -> None:
        if self.running < 1:
            raise InputError(f"requests that run at once: expected 1 or more, found {self.running}")
        if not 0 < self.seconds <= 86_400:
            raise InputError(f"--queue-seconds: expected above 0 to 86400, found {self.seconds:g}")


@dataclass(order=True, slots=True)
class _Waiter:
    start: float
    number: int
    turn: asyncio.Future[None] = field(compare=False)


class Line:
    """The requests that wait for the engine, and the number that run."""

    def __init__(self, limits: LineLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._numbers = itertools.count()
        self._waiting: list[_Waiter] = []  # sorted
        self._finish: dict[str, float] = {}
        self._virtual = 0.0
        self._interval, self._left_at = 0.0, 0.0
        self.running = 0
        """Requests that run now."""

    def __len__(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def place(self, tenant: str, tokens: int, priority: int) -> AsyncIterator[None]:
        """Wait for a place at the engine and hold it until the context ends.

        Args:
            tenant: Whose request it is.
            tokens: Tokens that it may read and make.
            priority: The tenant's, 1 or more.

        Yields:
            Nothing; the request runs in the context.

        Raises:
            BusyError: It would wait, or has waited, longer than the limit.
        """
        await self._enter(tenant, tokens / priority)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, tenant: str, cost: float) -> None:
        start = max(self._virtual, self._finish.get(tenant, 0.0))
        if self.running < self._limits.running and not self._waiting:
            self._finish[tenant] = start + cost
            self._admit(start)
            return
        waiter = _Waiter(start, next(self._numbers), asyncio.get_running_loop().create_future())
        self._check_wait(bisect.bisect(self._waiting, waiter) + 1)
        self._finish[tenant] = start + cost
        bisect.insort(self._waiting, waiter)
        try:
            async with asyncio.timeout(self._limits.seconds):
                await waiter.turn
        except BaseException as error:
            self._give_up(waiter, tenant, cost)
            if isinstance(error, TimeoutError):
                raise self._busy(self._limits.seconds) from None
            raise

    def _give_up(self, waiter: _Waiter, tenant: str, cost: float) -> None:
        """Take back what a waiter that goes away was given: its place in the line, or a place at the engine."""
        if waiter.turn.done() and not waiter.turn.cancelled():
            self._leave()
        else:
            self._waiting.remove(waiter)
            self._finish[tenant] -= cost
            self._next()  # whoever came while this one was still in the list waits behind nobody now

    def _admit(self, start: float) -> None:
        self.running += 1
        self._virtual = start
        if len(self._finish) > 1024:  # tenants whose work lies in the past start afresh anyway
            self._finish = {name: finish for name, finish in self._finish.items() if finish > self._virtual}

    def _leave(self) -> None:
        self.running -= 1
        self._measure()
        self._next()

    def _next(self) -> None:
        """Let those in whose turn it is, while there are places."""
        while self.running < self._limits.running:
            # One that was cancelled in this very turn of the loop is still in the list, and takes itself out.
            waiter = next((one for one in self._waiting if not one.turn.done()), None)
            if waiter is None:
                return
            self._waiting.remove(waiter)
            self._admit(waiter.start)
            waiter.turn.set_result(None)

    def _measure(self) -> None:
        """Keep the mean time between two requests that leave a full engine."""
        now = self._clock()
        if self._waiting and self._left_at:
            newest = now - self._left_at
            self._interval += (newest - self._interval) * (_SMOOTHING if self._interval else 1.0)
        self._left_at = now if self._waiting else 0.0

    def _check_wait(self, place: int) -> None:
        expected = place * self._interval
        if expected > self._limits.seconds:
            raise self._busy(expected)

    def _busy(self, seconds: float) -> BusyError:
        return BusyError(
            f"{len(self._waiting)} requests wait for the engine, about {seconds:.1f} s, and this server lets none wait "
            f"longer than {self._limits.seconds:g} s; try again later",
            "queue_seconds",
            max(1.0, seconds - self._limits.seconds),
        )
