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
from dataclasses import dataclass
from typing import TypeVar

from eul_serve.errors import EulError, NotFoundError, RefusedError
from eul_serve.format import Manifest, Reference
from eul_serve.metrics import Metrics
from eul_serve.policy import REFUSAL, Policy
from eul_serve.registry import AliasState, Registry
from eul_serve.swap.arrival import as_answer, reason_of
from eul_serve.swap.entry import Entry
from eul_serve.swap.feed import Feed
from eul_serve.swap.leases import Leases
from eul_serve.swap.policy_source import PolicySource, still_allowed, wanted_references
from eul_serve.swap.residency import Residency
from eul_serve.swap.unforget import check_move

_log = logging.getLogger("eul_serve.swap")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a reference leads in the registry."""

    reference: Reference
    """The reference."""
    revision: str
    """The revision that it means now."""
    manifest: Manifest
    """That revision's manifest."""
    state: AliasState | None
    """The alias as the registry has it; None for a reference by revision."""


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
    ) -> None:
        self._policies = policies
        self._registry = registry
        self._residency = residency
        self._leases = leases
        self._metrics = metrics
        self._feed = feed
        self._followed: dict[str, Reference] = {}
        self._moves: dict[str, asyncio.Task[None]] = {}
        self._complaints: dict[str, str] = {}
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
        if reference.revision is None:
            return await self._move(target)
        return await self._residency.ensure(reference.name, target.revision)

    def _wanted(self, policy: Policy) -> dict[str, Reference]:
        """What to follow: what the policy names, and aliases that a request named and a tenant may still use."""
        self._followed = {key: one for key, one in self._followed.items() if still_allowed(policy, one)}
        return {**self._followed, **wanted_references(policy)}

    def _read(self, reference: Reference) -> Target:
        """Look a reference up; blocks."""
        if reference.alias is None:
            revision, state = reference.revision or "", None
        else:
            # This alias alone: a damaged file of another one must not hold it where it is.
            state = self._registry.alias(reference.name, reference.alias)
            revision = state.revision
        manifest = self._registry.manifest(reference.name, revision)
        return Target(reference=reference, revision=revision, manifest=manifest, state=state)

    def _read_all(self, references: list[Reference]) -> list[Target]:
        found = []
        for reference in references:
            try:
                found.append(self._read(reference))
            except EulError as error:
                self._complain(reference, error)
        return found

    def _start_move(self, target: Target) -> None:
        entry = self._residency.pointed(target.reference)
        if entry is not None and entry.revision == target.revision:
            self._complaints.pop(str(target.reference), None)
            return
        key = str(target.reference)
        task = asyncio.create_task(self._try_move(target))
        self._moves[key] = task
        task.add_done_callback(lambda _: self._moves.pop(key, None))

    async def _try_move(self, target: Target) -> None:
        try:
            await self._move(target)
        except EulError as error:
            self._metrics.swaps.labels(outcome=reason_of(error)).inc()
            self._complain(target.reference, error)
        else:
            self._complaints.pop(str(target.reference), None)

    async def _move(self, target: Target) -> Entry:
        """Point a reference at its target: bring the revision in, then switch without a gap."""
        reference = target.reference
        self._check(target)
        entry = await self._residency.ensure(reference.name, target.revision)
        before = self._residency.pointed(reference)
        self._check(target)  # another move of this alias may have ended while this one was loading
        if still_allowed(self._policies.current, reference):
            self._followed[str(reference)] = reference
            self._residency.point(reference, entry)
            self._metrics.swaps.labels(outcome="done").inc()
            _log.info("%s is served by %s", reference, target.revision)
            was = before and before.revision
            self._feed.tell("swap", reference=str(reference), revision=target.revision, before=was)
        return entry

    def _check(self, target: Target) -> None:
        current = self._residency.pointed(target.reference)
        if current is not None and current.manifest is not None and target.state is not None:
            check_move(target.reference, current.manifest, target.manifest, target.state)

    def _complain(self, reference: Reference, error: EulError) -> None:
        """Log what keeps a reference where it is, once for as long as it is the same."""
        if self._complaints.get(str(reference)) != str(error):
            self._complaints[str(reference)] = str(error)
            _log.warning("%s stays where it is: %s", reference, error)
            self._feed.tell("swap_refused", reference=str(reference), reason=reason_of(error))


async def _forever(poll: Callable[[], Awaitable[None]], poll_seconds: float) -> None:
    while True:
        await asyncio.sleep(poll_seconds)
        try:
            await poll()
        except Exception:  # the server goes on with what it has; the next poll may work
            _log.exception("poll failed")
