"""Moves an alias from revision to revision while a load runs, and leaves it alone as long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from loading.home import ALIAS
from loading.load import Load
from loading.outcome import Outcome, percentile
from loading.timeline import Move
from tests.eul_serve.service_home import ServiceHome

SEEN_SECONDS = 30.0
"""What a move has to be seen by a client, before the next one is made all the same."""
REST_SECONDS = 1.0
"""Between two intervals, in which what was begun in one may end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A time in which the alias was moved, or left alone; monotonic seconds."""

    kind: Literal["quiet", "swaps"]
    """Which of the two."""
    begin: float
    """Its begin."""
    end: float
    """Its end."""

    def gaps(self, outcomes: Sequence[Outcome]) -> list[float]:
        """Return the seconds between two pieces of an answer that both came in this time."""
        return [
            gap
            for one in outcomes
            for gap, after in zip(one.gaps, one.times[1:], strict=True)
            if after <= self.end and after - gap >= self.begin
        ]

    def p99(self, outcomes: Sequence[Outcome]) -> float:
        """Return the 99th percentile of those seconds."""
        return percentile(self.gaps(outcomes), 99)


@dataclass(slots=True, kw_only=True)
class Mover:
    """Moves one alias; every move goes to a revision to which it has never pointed."""

    home: ServiceHome
    """The registry."""
    name: str
    """Name of the bundle."""
    load: Load
    """The load under which it moves."""
    poll_seconds: float
    """Between two looks of the server."""
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    """When a move comes within a poll."""
    moves: list[Move] = field(default_factory=list)
    """The moves so far."""
    unseen: int = 0
    """Moves whose revision answered nobody in time."""

    def pair(self, revisions: Sequence[str], *, quiet_first: float | None) -> list[Interval]:
        """Move the alias to each revision, and leave it alone for as long.

        Args:
            revisions: Where to move it.
            quiet_first: Seconds of the quiet interval, where it comes first; None has it last, as long as the other.

        Returns:
            Both intervals, in their order.
        """
        found = [self.rest(quiet_first)] if quiet_first is not None else []
        found.append(self.swaps(revisions))
        if quiet_first is None:
            found.append(self.rest(found[-1].end - found[-1].begin))
        return found

    def rest(self, seconds: float) -> Interval:
        """Leave the alias alone."""
        time.sleep(REST_SECONDS)
        begin = time.monotonic()
        time.sleep(seconds)
        return Interval(kind="quiet", begin=begin, end=time.monotonic())

    def swaps(self, revisions: Sequence[str]) -> Interval:
        """Move the alias to each revision, to the next one when the last has answered somebody."""
        time.sleep(REST_SECONDS)
        begin = time.monotonic()
        for revision in revisions:
            since, began = len(self.load), time.monotonic()
            self.home.registry.promote(self.name, revision, ALIAS, actor="benchmark")
            self.moves.append(Move(revision=revision, began=began, done=time.monotonic()))
            self.unseen += not self.load.wait_for(_names(revision), since, SEEN_SECONDS)
            # Not at once: moves that follow answers would always come at the same moment of the server's poll.
            time.sleep(self.chance.uniform(0.0, self.poll_seconds))
        return Interval(kind="swaps", begin=begin, end=time.monotonic())


def _names(revision: str) -> Callable[[Outcome], bool]:
    return lambda outcome: outcome.revision == revision
