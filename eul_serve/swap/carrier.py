"""Does outside what a revision's life asks for: pull, load, probe, unload."""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from eul_serve.engine.base import Engine, ResidentBundle, Work
from eul_serve.errors import EngineError
from eul_serve.metrics import Metrics
from eul_serve.swap.arrival import Store
from eul_serve.swap.canaries import Canaries
from eul_serve.swap.entry import Entry
from eul_serve.swap.revision import Action, Stage

_PROBE = (0, 1)
"""Tokens that every vocabulary has."""
MAX_PULLS = 4
"""Revisions that are pulled at the same time: most of a pull is waiting for a network or a disk."""


class Carrier:
    """Between registry, cache and engine; owns the numbers of the loads."""

    def __init__(self, engine: Engine, store: Store, canaries: Canaries, metrics: Metrics) -> None:
        self._engine = engine
        self._store = store
        self._canaries = canaries
        self._metrics = metrics
        self._ids = itertools.count(1)  # fresh for every load, never used again
        # Threads of their own, so that slow pulls keep no other work of the server waiting for one.
        self._pulls = ThreadPoolExecutor(MAX_PULLS, "eul-pull")
        self._releases: set[asyncio.Future[None]] = set()

    async def carry(self, entry: Entry, action: Action, pulled: Callable[[], None]) -> None:
        """Do what an entry's state asks for.

        Args:
            entry: The revision.
            action: What is to be done.
            pulled: Called on the event loop when a pull has brought its bytes.
        """
        if action is Action.PULL:
            await self.pull(entry, pulled)
        elif action is Action.LOAD:
            await self.load(entry)
        elif action is Action.PROBE:
            await self.probe(entry)
        elif entry.state.stage is Stage.FAILED:
            await self.discard(entry)
        else:
            await self.unload(entry)

    async def pull(self, entry: Entry, pulled: Callable[[], None]) -> None:
        """Bring a revision into the cache, verified, and give it a number.

        Args:
            entry: The revision.
            pulled: Called on the event loop when its bytes are there.
        """
        if self._releases:  # what has just left may be what makes room
            await asyncio.wait(tuple(self._releases))
        loop = asyncio.get_running_loop()
        # Both this and the thread's end reach the loop in the order in which they happen.
        told = functools.partial(loop.call_soon_threadsafe, pulled)
        bundle = await loop.run_in_executor(self._pulls, self._store.pull, entry.name, entry.revision, told)
        entry.kept = True
        entry.manifest, entry.canaries = bundle.manifest, bundle.canaries
        entry.resident = ResidentBundle(
            revision=entry.revision, id=next(self._ids), path=bundle.path, rank=bundle.config.rank
        )

    async def load(self, entry: Entry) -> None:
        """Bring a pulled revision into every worker."""
        assert entry.resident is not None, "a revision is loaded after it was pulled"
        with self._metrics.swap_stage("load"):
            stages = await self._engine.load(entry.resident)
        for stage, seconds in stages.items():
            self._metrics.load_seconds.labels(stage=stage).observe(seconds)

    async def probe(self, entry: Entry) -> None:
        """Let a loaded revision read a few tokens, and its canaries: it computes, and hides what it must.

        Its first caller does not wait for its slot either.

        Args:
            entry: The revision.

        Raises:
            EngineError: What it computes is no number.
            CanaryError: It does not hide what its canaries say.
        """
        assert entry.resident is not None, "a revision is probed after it was loaded"
        work = Work(id=secrets.token_hex(8), token_ids=_PROBE, bundle=entry.resident, salt=secrets.token_hex(16))
        with self._metrics.swap_stage("probe"):
            (score,) = await self._engine.score(work, [_PROBE])
            if not math.isfinite(score):
                raise EngineError(f"bundle {entry.revision}: its layers compute {score} where a number is expected")
            await self._canaries.check(entry)

    async def unload(self, entry: Entry) -> None:
        """Take a revision out of every worker after its drain."""
        await self.discard(entry)
        self._metrics.swap_seconds.labels(stage="drain").observe(time.monotonic() - entry.drains_since)

    async def discard(self, entry: Entry) -> None:
        """Take away what a failed load may have left in some workers."""
        assert entry.resident is not None, "a revision is unloaded after it was loaded"
        await self._engine.unload(entry.resident)

    def release(self, entry: Entry) -> None:
        """Let a revision that is out of the engine leave the cache too, where others need its room."""
        if entry.kept:
            entry.kept = False
            release = asyncio.get_running_loop().run_in_executor(self._pulls, self._store.release, entry.revision)
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)

    def close(self) -> None:
        """End the threads, and use nothing in the cache any more; called when nothing is under way."""
        self._pulls.shutdown()
        self._store.cache.close()
