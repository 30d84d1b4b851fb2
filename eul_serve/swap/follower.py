"""Follows registry and policy: polls read them in threads, and start what has to change.

Nothing slow delays the reading of the policy, so that a revoked right stops its requests in time: policy and registry
are read by a thread each, and every alias has at most one move under way, in a task of its own. What is ordered in the
registry is read before any alias, and obeyed at once.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from eul_serve.errors import BundleFormatError, EulError
from eul_serve.format import Reference
from eul_serve.metrics import Metrics
from eul_serve.policy import Policy
from eul_serve.swap.arrival import origin_of, reason_of
from eul_serve.swap.complaints import Complaints
from eul_serve.swap.enforcer import Enforcer
from eul_serve.swap.feed import Feed
from eul_serve.swap.finder import Finder
from eul_serve.swap.leases import Leases
from eul_serve.swap.lookout import Look, Lookout
from eul_serve.swap.mover import Mover
from eul_serve.swap.order_reader import OrderReader
from eul_serve.swap.orders import KnownOrders
from eul_serve.swap.policy_source import PolicySource, still_allowed, wanted_references
from eul_serve.swap.residency import Residency
from eul_serve.swap.target import Target

_log = logging.getLogger("eul_serve.swap")
_T = TypeVar("_T")


class Follower:
    """Keeps the server's pointers where the registry's aliases are, and its policy what the file says."""

    def __init__(
        self,
        policies: PolicySource,
        lookout: Lookout,
        residency: Residency,
        leases: Leases,
        metrics: Metrics,
        feed: Feed,
        mover: Mover,
        orders: KnownOrders,
        enforcer: Enforcer,
    ) -> None:
        self._policies = policies
        self._lookout = lookout
        self._residency = residency
        self._leases = leases
        self._metrics = metrics
        self._feed = feed
        self._mover = mover
        self._orders = orders
        self._enforcer = enforcer
        self._complaints = Complaints(residency, feed)
        self._moves: dict[str, asyncio.Task[None]] = {}
        self._policy_thread = ThreadPoolExecutor(1, "eul-policy")
        self._registry_thread = ThreadPoolExecutor(1, "eul-registry")
        self._reader = OrderReader(lookout, self._registry_thread, enforcer, self._complaints, metrics)
        self.finder = Finder(lookout, residency, mover, orders, self._reader)
        """Finds what requests run on."""

    async def poll_policy(self, *, strict: bool = False) -> None:
        """Read the policy once; stop what it does not grant any more.

        Args:
            strict: Whether one that cannot be read is an error.
        """
        read = functools.partial(self._policies.read, strict=strict)
        if self._policies.put(await self._in(self._policy_thread, read)):
            self._leases.recheck(self._policies.current)
            self._feed.tell("policy", epoch=self._policies.current.epoch)
            await self._recheck_trust()

    async def poll_registry(self) -> bool:
        """Read the registry once, and start what has to change; return whether it could be read."""
        wanted = self._wanted(self._policies.current)
        for key in self._residency.pointers() - wanted.keys():
            self._residency.unpoint(key)
        trouble = await self._reader.poll()
        # Damaged orders keep no alias from moving on; a registry that does not answer is asked for nothing else.
        if self._orders.standing is None or not isinstance(trouble, BundleFormatError | None):
            return False
        await self._recheck_trust()
        idle = [reference for key, reference in wanted.items() if key not in self._moves]
        known = {reference: self._revision_of(reference) for reference in idle}
        for look in await self._in(self._registry_thread, self._lookout.look_all, known):
            self._take(look)
        return trouble is None

    async def _recheck_trust(self) -> None:
        try:
            await self._enforcer.recheck()
        except EulError as error:  # what serves was judged when it came; the next poll tries again
            _log.warning("the signatures of what serves could not be read again: %s", error)

    async def look(self, reference: Reference) -> str:
        """Look at an alias now, and return the revision that serves it then.

        Args:
            reference: An alias that the policy names.

        Returns:
            Its revision.

        Raises:
            EulError: It cannot be read, or what it points to cannot be taken up.
        """
        await self._reader.read()
        target = (await self._in(self._registry_thread, self._lookout.look, reference)).found()
        entry = self._residency.pointed(reference)
        if entry is None or entry.revision != target.revision:
            entry = await self._mover.move(target)
        return entry.revision

    async def settle(self) -> None:
        """Wait until every move under way has ended."""
        while self._moves:
            await asyncio.wait(tuple(self._moves.values()))

    async def close(self) -> None:
        """Wait for what is under way, and end the threads."""
        await self.settle()
        await self._enforcer.close()
        self._lookout.close()
        for thread in (self._policy_thread, self._registry_thread):
            thread.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    async def _in(thread: ThreadPoolExecutor, work: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(thread, work, *arguments)

    def _wanted(self, policy: Policy) -> dict[str, Reference]:
        """What to follow: what the policy names, and aliases that a request named and a tenant may still use."""
        named = wanted_references(policy)
        followed = self._mover.followed
        # What the policy names itself is allowed: not to ask for each of thousands at every poll.
        for key in [key for key, one in followed.items() if key not in named and not still_allowed(policy, one)]:
            del followed[key]
        return {**followed, **named}

    def _revision_of(self, reference: Reference) -> str | None:
        entry = self._residency.pointed(reference)
        return entry.revision if entry is not None else None

    def _take(self, look: Look) -> None:
        """Start what a look at a reference asks for."""
        if look.error is not None:
            self._complaints.tell(look.reference, look.error)
        elif look.target is None or look.target.revision == self._revision_of(look.reference):
            self._complaints.end(look.reference)
        else:
            self._start_move(look.target)

    def _start_move(self, target: Target) -> None:
        key = str(target.reference)
        task = asyncio.create_task(self._try_move(target))
        self._moves[key] = task
        task.add_done_callback(lambda _: self._moves.pop(key, None))

    async def _try_move(self, target: Target) -> None:
        try:
            await self._mover.move(target)
        except EulError as error:
            self._metrics.swaps.labels(outcome=reason_of(origin_of(error))).inc()
            self._complaints.tell(target.reference, origin_of(error))
        else:
            self._complaints.end(target.reference)
