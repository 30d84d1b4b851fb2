"""Looks at a registry for the follower: what is ordered, and where aliases lead, many of them at once.

A look at an alias that has not moved costs one small read, and reads no manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from eul_serve.errors import EulError
from eul_serve.format import Reference
from eul_serve.registry import Registry
from eul_serve.registry.orders import Standing
from eul_serve.swap.target import Target

THREADS = 16
"""Aliases that are looked at at the same time: most of a look is waiting for a disk or a network."""
SERIAL = 8
"""So few aliases are looked at by one thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at a reference found."""

    reference: Reference
    """The reference."""
    target: Target | None = None
    """Where it leads; None where it stands where it stood, or cannot be read."""
    error: EulError | None = None
    """Why it cannot be read."""

    def found(self) -> Target:
        """Return where a look that knew no revision led, or raise why it led nowhere.

        Returns:
            Where it led.

        Raises:
            EulError: It led nowhere.
        """
        if self.error is not None:
            raise self.error
        assert self.target is not None, "a look that knows no revision finds a target"
        return self.target


class Lookout:
    """Reads one registry. Its methods block; call them in a thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._threads = ThreadPoolExecutor(THREADS, "eul-look")

    def orders(self) -> Standing:
        """Return what stands ordered.

        Returns:
            What stands.

        Raises:
            EulError: It cannot be read.
        """
        return self._registry.standing()

    def look(self, reference: Reference, known: str | None = None) -> Look:
        """Look at one reference.

        Args:
            reference: The reference.
            known: The revision that serves it now; None where none does.

        Returns:
            What was found.
        """
        try:
            if known is not None and self._stands(reference, known):
                return Look(reference=reference)
            return Look(reference=reference, target=Target.read(self._registry, reference))
        except EulError as error:
            return Look(reference=reference, error=error)

    def look_all(self, known: Mapping[Reference, str | None]) -> list[Look]:
        """Look at many references.

        Args:
            known: The revision that serves each now; None where none does.

        Returns:
            What was found, in the same order.
        """
        looks = map if len(known) <= SERIAL else self._threads.map
        return list(looks(self.look, known.keys(), known.values()))

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _stands(self, reference: Reference, known: str) -> bool:
        if reference.alias is None:
            return True
        return self._registry.alias(reference.name, reference.alias).revision == known
