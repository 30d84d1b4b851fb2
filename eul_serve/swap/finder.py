"""Finds what a request runs on, and brings it in where it is not in the engine."""

from __future__ import annotations

import asyncio

from eul_serve.errors import BannedError, EngineError, EulError, NotFoundError, RefusedError
from eul_serve.format import Reference
from eul_serve.policy import REFUSAL
from eul_serve.swap.arrival import as_answer
from eul_serve.swap.entry import Entry
from eul_serve.swap.lookout import Lookout
from eul_serve.swap.mover import Mover
from eul_serve.swap.order_reader import OrderReader
from eul_serve.swap.orders import KnownOrders
from eul_serve.swap.residency import Residency
from eul_serve.swap.target import Target


class Finder:
    """Answers in words for callers: what an operator may know alone is in the log."""

    def __init__(
        self, lookout: Lookout, residency: Residency, mover: Mover, orders: KnownOrders, reader: OrderReader
    ) -> None:
        self._lookout = lookout
        self._residency = residency
        self._mover = mover
        self._orders = orders
        self._reader = reader

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
        return entry if entry is not None else await self._bring(reference, await self._asked(reference))

    async def _asked(self, reference: Reference) -> Target:
        try:
            if not self._orders.read:
                await self._reader.poll()
            # The pair is looked up, never the digest alone: it may belong to a bundle of somebody else.
            return (await asyncio.to_thread(self._lookout.look, reference)).found()
        except NotFoundError as error:
            raise RefusedError(REFUSAL) from error
        except EulError as error:
            raise as_answer(str(reference), error) from error

    async def _bring(self, reference: Reference, target: Target) -> Entry:
        try:
            if reference.revision is not None:
                return await self._residency.ensure(reference.name, target.revision)
            return await self._mover.move(target)
        except BannedError as error:  # its words, and those of the next, are for operators
            raise RefusedError(REFUSAL) if reference.revision else _unserved(reference) from error
        except EulError as error:
            # Where its canaries failed, an earlier revision may stand in by now.
            if (instead := self._residency.pointed(reference)) is not None:
                return instead
            if isinstance(error, RefusedError):
                raise _unserved(reference) from error
            raise


def _unserved(reference: Reference) -> EngineError:
    return EngineError(f"{reference} is not served now; ask the operator for what the log says")
