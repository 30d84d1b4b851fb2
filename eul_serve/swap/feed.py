"""What happens in a server, told to whoever listens: the audit log, and people who watch swaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from eul_serve.errors import CapacityError, EngineError
from eul_serve.moment import utc_now

MAX_WATCHERS, MAX_BEHIND = 32, 1024
"""Watchers at once, and what may wait for a slow one before it is sent away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened."""

    act: str
    """stage, canary, swap, swap_refused, withdraw, purge, policy, start, stop, or an act of an administrator."""
    facts: Mapping[str, Any]
    """With what: names and digests, never a prompt or a secret."""
    at: str = field(default_factory=utc_now)
    """When, UTC, ISO 8601."""


class Feed:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Happening], None]] = []
        self._watchers: set[asyncio.Queue[Happening | None]] = set()

    def listen(self, listener: Callable[[Happening], None]) -> None:
        """Call a function at everything that happens from now on."""
        self._listeners.append(listener)

    def tell(self, act: str, **facts: Any) -> None:  # noqa: ANN401  # whatever JSON holds
        """Tell everybody."""
        happening = Happening(act=act, facts=facts)
        for listener in self._listeners:
            listener(happening)
        for queue in tuple(self._watchers):
            if queue.qsize() <= MAX_BEHIND:
                queue.put_nowait(happening)  # the one beyond the limit tells the watcher that it is too slow

    def end(self) -> None:
        """End every watch: nobody who only watches holds a server up that stops."""
        for queue in tuple(self._watchers):
            queue.put_nowait(None)

    @contextmanager
    def watching(self, most: int = MAX_WATCHERS) -> Iterator[AsyncIterator[Happening]]:
        """Watch what happens while the context lasts.

        Args:
            most: Watchers that there may be with this one.

        Yields:
            Each happening from now on, in order; raises CapacityError when its reader is too slow.

        Raises:
            CapacityError: Too many watch already.
        """
        if len(self._watchers) >= most:
            raise CapacityError(f"{most} callers watch already; end one of them")
        queue: asyncio.Queue[Happening | None] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield _read(queue)
        finally:
            self._watchers.discard(queue)


async def _read(queue: asyncio.Queue[Happening | None]) -> AsyncIterator[Happening]:
    while True:
        happening = await queue.get()
        if happening is None:
            raise EngineError("this server stops; watch another one")
        if queue.qsize() >= MAX_BEHIND:
            raise CapacityError(f"more than {MAX_BEHIND} happenings wait for this watcher; read faster")
        yield happening
