"""Reads what is ordered of a registry's revisions, and has it obeyed at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from eul_serve.errors import EulError
from eul_serve.metrics import Metrics
from eul_serve.swap.complaints import Complaints
from eul_serve.swap.enforcer import Enforcer
from eul_serve.swap.lookout import Lookout


class OrderReader:
    """Reads in one thread, once at a time: whoever asks while somebody reads waits for the same answer."""

    def __init__(
        self,
        lookout: Lookout,
        thread: ThreadPoolExecutor,
        enforcer: Enforcer,
        complaints: Complaints,
        metrics: Metrics,
    ) -> None:
        self._lookout = lookout
        self._thread = thread
        self._enforcer = enforcer
        self._complaints = complaints
        self._metrics = metrics
        self._reading: asyncio.Task[EulError | None] | None = None

    async def poll(self) -> EulError | None:
        """Read what is ordered, and obey it; where it cannot be read, what was read before stays in force.

        Returns:
            Why it could not be read, or None.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._try())
            self._reading.add_done_callback(self._end)
        return await asyncio.shield(self._reading)

    async def read(self) -> None:
        """Read what is ordered, and obey it.

        Raises:
            EulError: It cannot be read.
        """
        self._enforcer.put(await asyncio.get_running_loop().run_in_executor(self._thread, self._lookout.orders))

    def _end(self, _: asyncio.Task[EulError | None]) -> None:
        self._reading = None

    async def _try(self) -> EulError | None:
        try:
            await self.read()
        except EulError as error:
            self._metrics.registry_polls.labels(outcome="failed").inc()
            self._complaints.tell_unread(error)
            return error
        self._metrics.registry_polls.labels(outcome="done").inc()
        self._complaints.end_unread()
        return None
