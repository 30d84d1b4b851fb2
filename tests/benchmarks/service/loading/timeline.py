"""Where an alias pointed and when, what its revisions answer, and which answers are therefore wrong.

An answer names its revision in its first message, which the server sends once the request is admitted: at some moment
between `sent` and `admitted`, by the client's clock, which is also that of whoever moves the alias. It is wrong where

    unknown   it names a revision to which the alias never pointed, or more than one
    early     that revision's move had not begun when the answer did
    back      it was sent after another answer had begun that named a later revision: the server had moved already
    content   its tokens or its text are not the reference answer of the revision that it names

Answers are greedy and every revision has its own, so that `content` finds one that names a revision and is another's.
An answer of the earlier revision is right while the server takes up the later one; how long that may last is what
`seconds` measure. One that was sent more than a given time after a move had been made and still names the revision
before is counted as `late`, apart from the wrong ones.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loading.outcome import Outcome

FAULTS = ("unknown", "early", "back", "content")


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move of the alias; all revisions differ. Times are monotonic seconds."""

    revision: str
    """Where it pointed afterwards."""
    began: float
    """When the registry was asked to move it."""
    done: float
    """When it had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A revision's greedy answer."""

    token_ids: tuple[int, ...]
    """Its tokens."""
    text: str
    """Its text."""

    def agrees(self, outcome: Outcome) -> bool:
        """Return whether an answer is this one, as far as it was asked for."""
        expected = self.token_ids[: outcome.asked]
        if outcome.token_ids != expected:
            return False
        return len(expected) < len(self.token_ids) or outcome.text == self.text


class Timeline:
    """The moves of one alias, and the answers that were given under it."""

    def __init__(self, moves: Sequence[Move], references: Mapping[str, Reference], outcomes: Sequence[Outcome]) -> None:
        """Take everything that happened.

        Args:
            moves: The moves, in their order; the first one is where the alias pointed at the beginning.
            references: The reference answer of every revision.
            outcomes: Every request under the alias that was answered.
        """
        self._moves, self._references = moves, references
        self._places = {move.revision: place for place, move in enumerate(moves)}
        begun = sorted((one.admitted, self._places[one.revision]) for one in outcomes if one.revision in self._places)
        self._times = [at for at, _ in begun]
        self._newest = list(itertools.accumulate((place for _, place in begun), max))

    def fault(self, outcome: Outcome) -> str:
        """Return what is wrong with an answer, one of `FAULTS`; empty where it is right."""
        place = self._places.get(outcome.revision)
        if place is None:
            return "unknown"
        if outcome.admitted < self._moves[place].began:
            return "early"
        if self._seen_before(outcome.sent) > place:
            return "back"
        return "" if self._references[outcome.revision].agrees(outcome) else "content"

    def is_late(self, outcome: Outcome, seconds: float) -> bool:
        """Return whether an answer names an earlier revision although a move was made so many seconds before."""
        place = self._places.get(outcome.revision)
        if place is None or place + 1 >= len(self._moves):
            return False
        return outcome.sent > self._moves[place + 1].done + seconds

    def _seen_before(self, at: float) -> int:
        """Return the place of the latest revision that any answer had named by then; -1 for none."""
        count = bisect.bisect_left(self._times, at)
        return self._newest[count - 1] if count else -1


def swap_seconds(moves: Sequence[Move], outcomes: Sequence[Outcome]) -> list[float]:
    """Return the seconds from each move's beginning to the first token that its revision made for anyone.

    Args:
        moves: The moves, without where the alias pointed at first.
        outcomes: All answered requests, probes included.

    Returns:
        Seconds for each move whose revision answered; one that nobody saw has none.
    """
    first: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.times:
            first[outcome.revision] = min(first.get(outcome.revision, outcome.times[0]), outcome.times[0])
    return [first[move.revision] - move.began for move in moves if move.revision in first]
