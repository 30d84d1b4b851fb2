"""Moves what serves a reference: to where the registry leads, to what may stand in, or to nothing."""

from __future__ import annotations

import logging

from eul_serve.errors import BannedError, CanaryError, EulError
from eul_serve.format import Reference
from eul_serve.metrics import Metrics
from eul_serve.swap.arrival import origin_of
from eul_serve.swap.entry import Entry
from eul_serve.swap.fallback import Fallback
from eul_serve.swap.feed import Feed
from eul_serve.swap.orders import KnownOrders
from eul_serve.swap.policy_source import PolicySource, still_allowed
from eul_serve.swap.residency import Residency
from eul_serve.swap.target import Target

_log = logging.getLogger("eul_serve.swap")


class Mover:
    """Lives on the event loop of the server."""

    def __init__(
        self,
        policies: PolicySource,
        residency: Residency,
        fallback: Fallback,
        orders: KnownOrders,
        metrics: Metrics,
        feed: Feed,
    ) -> None:
        self._policies = policies
        self._residency = residency
        self._fallback = fallback
        self._orders = orders
        self._metrics = metrics
        self._feed = feed
        self.followed: dict[str, Reference] = {}
        """What was served once, by its text; the follower forgets what no tenant may use any more."""

    async def move(self, target: Target) -> Entry:
        """Point a reference at its target: bring the revision in, then switch without a gap.

        Args:
            target: Where the reference leads.

        Returns:
            What serves it now.

        Raises:
            RefusedError: The move would un-forget, or what it leads to is banned.
            EulError: The revision could not be taken up.
        """
        reference = target.reference
        self._fallback.check(target)
        before = self._residency.pointed(reference)
        try:
            entry = await self._residency.ensure(reference.name, target.revision)
        except EulError as error:
            if isinstance(origin_of(error), CanaryError):
                await self._retreat(target, before)
            elif isinstance(error, BannedError):
                self._take_away(target, before, self._orders.act(target.revision))
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
        self._take_away(target, before, "canary")

    def _take_away(self, target: Target, before: Entry | None, reason: str) -> None:
        """Let nothing serve an alias: what did may not cover what the alias covers now."""
        reference = target.reference
        self._fallback.covers(reference, target.manifest)
        if before is not None and self._residency.pointed(reference) is before:
            self._residency.unpoint(str(reference))
            self._feed.tell("withdraw", reference=str(reference), revision=before.revision, reason=reason)

    def _point(self, reference: Reference, entry: Entry, **facts: object) -> None:
        """Let an entry serve a reference, where a tenant may still use it."""
        before = self._residency.pointed(reference)
        if not still_allowed(self._policies.current, reference):
            return
        self.followed[str(reference)] = reference
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
