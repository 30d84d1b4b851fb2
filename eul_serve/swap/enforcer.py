"""Carries out what people order and whom they believe: what is banned, deleted or untrusted is served by nobody.

Pointers to it go, what runs on it is stopped, it leaves the engine, and a deleted one the disk too. What its aliases
cover stays in memory, so that nothing un-forgets in the gap, and nothing stands in: a person moves the alias.
"""

from __future__ import annotations

import asyncio
import logging

from eul_serve.errors import EulError, UntrustedError
from eul_serve.registry import Cache
from eul_serve.registry.orders import Standing
from eul_serve.swap.feed import Feed
from eul_serve.swap.leases import Leases
from eul_serve.swap.orders import KnownOrders
from eul_serve.swap.residency import Residency
from eul_serve.swap.trust import Trust
from eul_serve.swap.unforget import MAX_REASON

_log = logging.getLogger("eul_serve.swap")
_STATES = {"ban": "banned", "delete": "deleted", "untrusted": "signed by nobody who is believed"}


class Enforcer:
    """Lives on the event loop of the server."""

    def __init__(
        self, orders: KnownOrders, trust: Trust, residency: Residency, leases: Leases, cache: Cache, feed: Feed
    ) -> None:
        self._orders = orders
        self._trust = trust
        self._trusted_as: object = None
        self._residency = residency
        self._leases = leases
        self._cache = cache
        self._feed = feed
        self._obeyed = Standing()
        self._purged: set[str] = set()
        self._purges: dict[str, asyncio.Task[None]] = {}

    def put(self, standing: Standing) -> None:
        """Obey what stands from now on.

        Args:
            standing: What the registry says.
        """
        before, self._obeyed = self._obeyed, standing
        self._orders.put(standing)  # first: nothing that is withdrawn below may come back
        for order in (*standing.banned.values(), *standing.deleted.values()):
            if order not in (before.banned.get(order.digest), before.deleted.get(order.digest)):
                self._withdraw(order.digest, order.act, order.reason)
        for revision in before.banned.keys() - standing.banned.keys():
            if (entry := self._residency.entry(revision)) is not None:
                entry.retry_at = 0.0  # it may be tried again at once
        for revision in standing.deleted.keys() - self._purged - self._purges.keys():
            self._start_purge(revision)

    async def recheck(self) -> None:
        """Withdraw what nobody may be believed for any more; nothing is done where nothing has changed."""
        state = self._trust.state()
        if state == self._trusted_as:
            return
        for entry in self._residency.entries():
            if not entry.state.admits:
                continue  # it is judged when it is pulled
            try:
                await asyncio.to_thread(self._trust.check, entry.name, entry.revision)
            except UntrustedError as error:
                self._withdraw(entry.revision, "untrusted", str(error))
        self._trusted_as = state  # where the registry could not be read, the next poll tries again

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._purges:
            await asyncio.wait(tuple(self._purges.values()))

    def _withdraw(self, revision: str, act: str, why: str) -> None:
        served = self._residency.withdraw(revision)
        stopped = self._leases.stop(revision)
        for key in served:
            _log.warning("%s is served by nothing: %s is %s: %s", key, revision, _STATES[act], why)
            facts = {"reference": key, "revision": revision, "reason": act, "stopped": stopped}
            self._feed.tell("withdraw", **facts, why=why[:MAX_REASON])

    def _start_purge(self, revision: str) -> None:
        task = asyncio.create_task(self._purge(revision))
        self._purges[revision] = task
        task.add_done_callback(lambda _: self._purges.pop(revision, None))

    async def _purge(self, revision: str) -> None:
        """Remove a deleted revision from this machine; what fails is tried again at the next poll."""
        while (entry := self._residency.entry(revision)) is not None and entry.state.holds_place:
            await entry.changed.wait()
        try:
            removed = await asyncio.to_thread(self._cache.remove, revision)
        except EulError as error:
            _log.error("bundle %s: deleted, and still in the cache: %s", revision, error)
            return
        self._purged.add(revision)
        if removed:
            _log.info("bundle %s: deleted, and removed from the cache", revision)
            self._feed.tell("purge", revision=revision)
