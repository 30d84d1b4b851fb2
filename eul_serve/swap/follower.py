"""Follows registry and policy: polls read them in threads, and start what has to change.

Nothing slow delays the reading of the policy, so that a revoked right stops its requests in time: policy and registry
are read by a thread each, and every alias has at most one move under way, in a task of its own.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from eul_serve.errors import CanaryError, EngineError, EulError, NotFoundError, RefusedError
from eul_serve.format import Reference
from eul_serve.metrics import Metrics
from eul_serve.policy import REFUSAL, Policy
from eul_serve.registry import Registry
from eul_serve.swap.arrival import as_answer, origin_of, reason_of
from eul_serve.swap.complaints import Complaints
from eul_serve.swap.entry import Entry
from eul_serve.swap.fallback import Fallback
from eul_serve.swap.feed import Feed
from eul_serve.swap.leases import Leases
from eul_serve.swap.memory import Memory
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
        registry: Registry,
        residency: Residency,
        leases: Leases,
        metrics: Metrics,
        feed: Feed,
        memory: Memory,
    ) -> None:
        self._policies = policies
        self._registry = registry
        self._residency = residency
        self._leases = leases
        self._metrics = metrics
        self._feed = feed
        self._fallback = Fallback(policies, registry, residency, memory)
        self._complaints = Complaints(residency, feed)
        self._followed: dict[str, Reference] = {}
        self._moves: dict[str, asyncio.Task[None]] = {}
        self._policy_thread = ThreadPoolExecutor(1, "eul-policy")
        self._registry_thread = ThreadPoolExecutor(1, "eul-registry")

    async def run(self, poll_seconds: float) -> None:
        """Poll for ever."""
        await asyncio.gather(*(_forever(poll, poll_seconds) for poll in (self.poll_policy, self.poll_registry)))

    async def poll_policy(self, *, strict: bool = False) -> None:
        """Read the policy once; stop what it does not grant any more.

        Args:
            strict: Whether one that cannot be read is an error.
        """
        read = functools.partial(self._policies.read, strict=strict)
        if self._policies.put(await self._in(self._policy_thread, read)):
            self._leases.recheck(self._policies.current)
            self._feed.tell("policy", epoch=self._policies.current.epoch)

    async def poll_registry(self) -> None:
        """Read the registry once, and start what has to change."""
        wanted = self._wanted(self._policies.current)
        for key in self._residency.pointers() - wanted.keys():
            self._residency.unpoint(key)
        idle = [reference for key, reference in wanted.items() if key not in self._moves]
        for target in await self._in(self._registry_thread, self._read_all, idle):
            self._start_move(target)

    async def look(self, reference: Reference) -> str:
        """Look at an alias now, and return the revision that serves it then.

        Args:
            reference: An alias that the policy names.

        Returns:
            Its revision.

        Raises:
            EulError: It cannot be read, or what it points to cannot be taken up.
        """
        target = await self._in(self._registry_thread, self._read, reference)
        entry = self._residency.pointed(reference)
        if entry is None or entry.revision != target.revision:
            entry = await self._move(target)
        return entry.revision

    async def settle(self) -> None:
        """Wait until every move under way has ended."""
        while self._moves:
            await asyncio.wait(tuple(self._moves.values()))

    def close(self) -> None:
        """End the threads."""
        for thread in (self._policy_thread, self._registry_thread):
            thread.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    async def _in(thread: ThreadPoolExecutor, work: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(thread, work, *arguments)

    async def find(self, reference: Reference) -> Entry:
        """Return the entry that a request for a reference runs on, bringing it in where it is not in the engine.

        Args:
            reference: What the policy allowed the caller to name.

        Returns:
            An entry that admits requests now.

        Raises:
            EulError: There is none, or it cannot be taken up.
        """
        entry = self._residency.pointed(reference)
        if entry is not None:
            return entry
        try:
            # The pair is looked up, never the digest alone: it may belong to a bundle of somebody else.
            target = await asyncio.to_thread(self._read, reference)
        except NotFoundError as error:
            raise RefusedError(REFUSAL) from error
        except EulError as error:
            raise as_answer(str(reference), error) from error
        if reference.revision is not None:
            return await self._residency.ensure(reference.name, target.revision)
        try:
            self._fallback.check(target)
        except RefusedError as error:  # its words are for operators
            raise EngineError(f"{reference} is not served now; ask the operator for what the log says") from error
        try:
            return await self._move(target)
        except EulError:
            # Where its canaries failed, an earlier revision may stand in by now.
            if (instead := self._residency.pointed(reference)) is None:
                raise
            return instead

    def _wanted(self, policy: Policy) -> dict[str, Reference]:
        """What to follow: what the policy names, and aliases that a request named and a tenant may still use."""
        self._followed = {key: one for key, one in self._followed.items() if still_allowed(policy, one)}
        return {**self._followed, **wanted_references(policy)}

    def _read(self, reference: Reference) -> Target:
        return Target.read(self._registry, reference)

    def _read_all(self, references: list[Reference]) -> list[Target]:
        found = []
        for reference in references:
            try:
                found.append(self._read(reference))
            except EulError as error:
                self._complaints.tell(reference, error)
        return found

    def _start_move(self, target: Target) -> None:
        entry = self._residency.pointed(target.reference)
        if entry is not None and entry.revision == target.revision:
            self._complaints.end(target.reference)
            return
        key = str(target.reference)
        task = asyncio.create_task(self._try_move(target))
        self._moves[key] = task
        task.add_done_callback(lambda _: self._moves.pop(key, None))

    async def _try_move(self, target: Target) -> None:
        try:
            await self._move(target)
        except EulError as error:
            self._metrics.swaps.labels(outcome=reason_of(origin_of(error))).inc()
            self._complaints.tell(target.reference, origin_of(error))
        else:
            self._complaints.end(target.reference)

    async def _move(self, target: Target) -> Entry:
        """Point a reference at its target: bring the revision in, then switch without a gap."""
        reference = target.reference
        self._fallback.check(target)
        before = self._residency.pointed(reference)
        try:
            entry = await self._residency.ensure(reference.name, target.revision)
        except EulError as error:
            if isinstance(origin_of(error), CanaryError):
                await self._retreat(target, before)
            raise
        facts = self._fallback.check(target)  # another move of this alias may have ended while this one was loading
        self._point(reference, entry, **facts)
        return entry

    async def _retreat(self, target: Target, before: Entry | None) -> None:
        """Let an alias whose revision failed its canaries be served by what may stand in, or by nothing.

        Nothing is done where the alias is not where it was `before`, as another move has ended meanwhile.
        """
        reference = target.reference
        instead = await self._fallback.find(target)
        if self._residency.pointed(reference) is not before:
            return
        if instead is not None:
            self._point(reference, instead, instead_of=target.revision)
            return
        self._fallback.covers(reference, target.manifest)
        if before is not None:
            self._residency.unpoint(str(reference))
            self._feed.tell("withdraw", reference=str(reference), revision=before.revision, reason="canary")

    def _point(self, reference: Reference, entry: Entry, **facts: object) -> None:
        """Let an entry serve a reference, where a tenant may still use it."""
        before = self._residency.pointed(reference)
        if not still_allowed(self._policies.current, reference):
            return
        self._followed[str(reference)] = reference
        self._fallback.covers(reference, entry.manifest)
        if before is entry:
            return
        self._residency.point(reference, entry)
        self._metrics.swaps.labels(outcome="done").inc()
        _log.info("%s is served by %s", reference, entry.revision)
        was = before and before.revision
        if entry.canaries:
            facts["canaries"] = len(entry.canaries)
        self._feed.tell("swap", reference=str(reference), revision=entry.revision, before=was, **facts)


async def _forever(poll: Callable[[], Awaitable[None]], poll_seconds: float) -> None:
    while True:
        await asyncio.sleep(poll_seconds)
        try:
            await poll()
        except Exception:  # the server goes on with what it has; the next poll may work
            _log.exception("poll failed")
