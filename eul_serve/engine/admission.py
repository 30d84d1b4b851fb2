"""Who may run in an engine now: the prompt fits, the bundle is resident and has a slot, or the base is allowed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from eul_serve.engine.base import ResidentBundle, Work
from eul_serve.engine.prompts import Prompts
from eul_serve.engine.residents import Residents
from eul_serve.engine.turns import Turns
from eul_serve.errors import InputError, RefusedError


class Admission:
    """The way of every request into one engine, and the pins of its slots."""

    def __init__(self, prompts: Prompts, residents: Residents, turns: Turns) -> None:
        """Deny the base until it is allowed.

        Args:
            prompts: What a prompt may be.
            residents: The bundles that every worker holds.
            turns: Whose bundle has a slot.
        """
        self._prompts, self._residents, self.turns = prompts, residents, turns
        self.deny_base = True
        """Refuse every request without a bundle."""

    @asynccontextmanager
    async def turn(self, work: Work, continuations: Sequence[tuple[int, ...]] = ()) -> AsyncIterator[None]:
        """Let a request run while the context lasts; waits until its bundle has a slot.

        Args:
            work: The request.
            continuations: Token ids that are scored after its prompt, at least one in each.

        Yields:
            Nothing.

        Raises:
            InputError: Something does not fit the context, or a continuation is empty.
            RefusedError: No bundle, where the base is denied.
            EngineError: The bundle is not resident.
        """
        self._check(work)
        for continuation in continuations:
            if not continuation:
                raise InputError("continuation: expected at least one token, found none")
            self._prompts.check(work.token_ids + continuation)
        if work.bundle is None:
            yield
            return
        async with self.turns.turn(work.bundle.id):
            self._check(work)  # the bundle may have gone while this request waited
            yield

    def _check(self, work: Work) -> None:
        self._prompts.check(work.token_ids)
        if work.bundle is not None:
            self._residents.check(work.bundle)
        elif self.deny_base:
            raise RefusedError("the base model is denied in this engine; name a bundle")

    async def pin(self, bundle: ResidentBundle) -> None:
        """Let a resident bundle keep a slot of its own.

        Args:
            bundle: The bundle.

        Raises:
            EngineError: It is not resident, or the engine died.
            CapacityError: No slot would be left for other bundles.
        """
        self._residents.check(bundle)
        await self.turns.pin(bundle.id)
        try:
            self._residents.check(bundle)  # it may have gone while this waited for a slot
            await self._residents.hold_slot(bundle, held=True)
        except BaseException:
            self.turns.unpin(bundle.id)
            raise

    async def unpin(self, bundle: ResidentBundle) -> None:
        """Let a bundle's slot go again; nothing happens where it is not pinned."""
        if bundle in self._residents:
            await self._residents.hold_slot(bundle, held=False)
        self.turns.unpin(bundle.id)
