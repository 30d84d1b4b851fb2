"""How well scores tell two sets of rows apart: the area under the ROC curve, with an interval that is never empty.

The interval is Newcombe's method 5 (Statistics in Medicine 25:559, 2006): all areas t from which the one found lies
within z sqrt(V(t)), with Hanley and McNeil's V(t) = t (1 - t) (1 + N (1 - t) / (2 - t) + N t / (1 + t)) / (m n) and
N = (m + n) / 2 - 1. Unlike DeLong's or a bootstrap's it has a width at 0 and 1 too, where a few rows prove little.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from eul_trainer.metrics.undefined import UndefinedError

LEVEL = 0.95
"""Confidence of the interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """An area under a ROC curve."""

    value: float
    """Probability that a random member scores higher than a random row that is none, ties counted half; 0 to 1."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    members: int
    """Rows that were trained on."""
    others: int
    """Rows that were not."""


def area(members: Sequence[float], others: Sequence[float], level: float = LEVEL) -> Area:
    """Return how well scores tell members from other rows.

    Args:
        members: Scores of rows that were trained on.
        others: Scores of rows that were not.
        level: Confidence of the interval, between 0 and 1.

    Returns:
        The area; 0.5 where the scores say nothing.

    Raises:
        UndefinedError: A set is empty, or a score is not a number.
    """
    if not members or not others:
        raise UndefinedError(
            f"membership: {len(members)} forgotten and {len(others)} unseen rows; give at least 1 of each"
        )
    if any(map(math.isnan, [*members, *others])):
        raise UndefinedError("membership: a row's score is not a number; see the rows' losses")
    ranked = sorted(others)
    wins = sum(bisect_left(ranked, score) + bisect_right(ranked, score) for score in members) / 2
    value = wins / (len(members) * len(others))
    low, high = interval(value, len(members), len(others), level)
    return Area(value=value, low=low, high=high, members=len(members), others=len(others))


def interval(value: float, members: int, others: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the ends of the interval around an area; see the head of this file.

    Args:
        value: The area, 0 to 1.
        members: Rows that were trained on.
        others: Rows that were not.
        level: Confidence, between 0 and 1.

    Returns:
        Lower and upper end.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    more = (members + others) / 2 - 1

    def reach(area: float) -> float:
        spread = 1 + more * (1 - area) / (2 - area) + more * area / (1 + area)
        return z * math.sqrt(area * (1 - area) * spread / (members * others))

    low = _root(lambda end: end + reach(end) - value, 0.0, value)
    high = _root(lambda end: end - reach(end) - value, value, 1.0)
    return low, high


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function that is negative at the low end and not at the high one crosses zero."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high
