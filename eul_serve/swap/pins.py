"""Aliases whose revision keeps a slot of the engine, whichever it is."""

from __future__ import annotations

import asyncio
import logging

from eul_serve.engine.base import Engine, ResidentBundle
from eul_serve.errors import EulError, NotFoundError
from eul_serve.format import Reference
from eul_serve.swap.feed import Feed, Happening
from eul_serve.swap.residency import Residency

_log = logging.getLogger("eul_serve.swap")


class Pins:
    """Follows the pinned aliases from revision to revision."""

    def __init__(self, engine: Engine, residency: Residency, feed: Feed) -> None:
        self._engine = engine
        self._residency = residency
        self._held: dict[str, ResidentBundle | None] = {}
        self._references: dict[str, Reference] = {}
        self._work: set[asyncio.Task[None]] = set()
        feed.listen(self._on)

    def __contains__(self, revision: object) -> bool:
        return any(bundle is not None and bundle.revision == revision for bundle in self._held.values())

    async def pin(self, reference: Reference) -> str:
        """Pin what an alias points to, and what it will point to.

        Args:
            reference: The alias.

        Returns:
            The revision that has the slot.

        Raises:
            NotFoundError: The alias is not active here.
            CapacityError: No slot would be left for other bundles.
        """
        entry = self._residency.pointed(reference)
        if entry is None or entry.resident is None:
            raise NotFoundError(f"{reference}: not active on this server; activate it first")
        await self._engine.pin(entry.resident)
        self._references[str(reference)], self._held[str(reference)] = reference, entry.resident
        return entry.revision

    async def unpin(self, reference: Reference) -> None:
        """Let an alias's slot go; nothing happens where it has none."""
        self._references.pop(str(reference), None)
        held = self._held.pop(str(reference), None)
        if held is not None and held not in self._held.values():
            await self._engine.unpin(held)

    def _on(self, happening: Happening) -> None:
        key = happening.facts.get("reference")
        if happening.act == "swap" and key in self._references:
            task = asyncio.create_task(self._move(self._references[key]))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _move(self, reference: Reference) -> None:
        """Give the slot to the new revision; the old one's goes with it when it leaves the engine."""
        entry, old = self._residency.pointed(reference), self._held.get(str(reference))
        if entry is None or entry.resident is None or entry.resident == old:
            return
        try:
            if old is not None and list(self._held.values()).count(old) == 1:
                await self._engine.unpin(old)
            await self._engine.pin(entry.resident)
            self._held[str(reference)] = entry.resident
        except EulError as error:
            self._held[str(reference)] = None
            _log.warning("%s: its slot is not pinned any more: %s", reference, error)

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._work:
            await asyncio.wait(tuple(self._work))
