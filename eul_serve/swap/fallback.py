"""What may serve an alias: nothing that un-forgets; where its revision failed its canaries, an earlier one or none."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any

from eul_serve.errors import EulError
from eul_serve.format import Manifest, Reference
from eul_serve.registry import AliasState, Registry, dropped_requests
from eul_serve.swap.entry import Entry
from eul_serve.swap.memory import Memory
from eul_serve.swap.policy_source import PolicySource
from eul_serve.swap.residency import Residency
from eul_serve.swap.target import Target
from eul_serve.swap.unforget import check_move

MAX_EARLIER = 16
"""Earlier revisions that are looked at."""


class Fallback:
    """Finds what may stand in, and holds every move against what its alias is remembered to cover."""

    def __init__(self, policies: PolicySource, registry: Registry, residency: Residency, memory: Memory) -> None:
        self._policies = policies
        self._registry = registry
        self._residency = residency
        self._memory = memory

    def check(self, target: Target) -> dict[str, Any]:
        """Say what a move of an alias un-forgets, where somebody has said why it may.

        Args:
            target: Where the alias leads.

        Returns:
            What `check_move` says of it; nothing where the alias was never served from this cache.

        Raises:
            RefusedError: A request would come back without a recorded reason.
        """
        return self._check(target.reference, target.manifest, target.state)

    def covers(self, reference: Reference, manifest: Manifest | None) -> None:
        """Remember what an alias covers from now on, whether it is served or was withdrawn; revisions need none."""
        if reference.alias is not None and manifest is not None:
            self._memory.note(reference, manifest)

    async def find(self, target: Target) -> Entry | None:
        """Find what may serve an alias in the place of a revision that failed its canaries.

        Args:
            target: Where the alias leads.

        Returns:
            The newest earlier revision that covers all that the failed one covers and is in the engine, its own
            canaries passed; None where there is none, or the policy lets nothing stand in.
        """
        state = target.state
        if state is None or self._policies.current.canaries.on_failure != "previous":
            return None
        reference = target.reference
        for manifest in await asyncio.to_thread(self._earlier, target, state):
            try:
                self._check(reference, manifest, state)
                return await self._residency.ensure(reference.name, manifest.revision)
            except EulError:  # it does not serve either; the log has why
                continue
        return None

    def _check(self, reference: Reference, manifest: Manifest, state: AliasState | None) -> dict[str, Any]:
        covered = self._memory.covered(reference)
        if covered is None or state is None:
            return {}
        return check_move(reference, covered, manifest, state)

    def _earlier(self, target: Target, state: AliasState) -> list[Manifest]:
        """Return the manifests of earlier revisions that lack no request of a target, the newest first; blocks."""
        revisions = dict.fromkeys(move.revision for move in reversed(state.history))
        revisions.pop(target.revision, None)
        found = []
        for revision in islice(revisions, MAX_EARLIER):
            try:
                manifest = self._registry.manifest(target.reference.name, revision)
            except EulError:  # no longer there, or damaged
                continue
            if not dropped_requests(target.manifest, manifest):
                found.append(manifest)
        return found
