"""When to stop: at the first forget loss in or above a band, after the least steps. Overshoot is scaled back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PROBE_ROWS = 15
"""Rows of the forget set that are measured."""
MEASURED_ROWS = 64
"""The same for what is reported, and for scaling."""
PROBE_EVERY = 4
"""Steps between two measurements."""
PROBE_EVERY_NEAR = 2
"""The same near the band, where a step can change the loss by half a nat."""
NEAR = 1.5
"""Distance below the band that counts as near, nats."""
PROBE_FIRST = 8
"""Steps before the first measurement, and between two of them where none can end the run yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The two-sided target for the mean forget loss."""

    low: float
    """Lower end, nats."""
    high: float
    """Upper end, nats."""

    def reached(self, loss: float) -> bool:
        """Return whether a loss is inside of the band."""
        return self.low <= loss <= self.high

    def passed(self, loss: float) -> bool:
        """Return whether a loss is in the band or above it, and a number at all."""
        return self.low <= loss < math.inf

    @property
    def middle(self) -> float:
        """The middle of the band, nats."""
        return (self.low + self.high) / 2

    def distance(self, loss: float) -> float:
        """Return how far a loss is from the middle of the band."""
        return abs(loss - self.middle)

    def better(self, loss: float, best: float | None) -> bool:
        """Return whether a loss is nearer to the middle than the best so far."""
        return best is None or self.distance(loss) < self.distance(best)


def probe_now(step: int, losses: Sequence[float], target: Target, least: int = 0) -> bool:
    """Return whether the forget loss is measured after a step.

    Args:
        step: The step, from 0.
        losses: What was measured before.
        target: The band.
        least: Steps before which no measurement ends the run; then one is made for the first that may.

    Returns:
        Whether to measure.
    """
    if step + 1 <= least:
        return step + 1 == least or (step + 1) % PROBE_FIRST == 0
    near = bool(losses) and losses[-1] >= target.low - NEAR
    return step >= PROBE_FIRST and (step + 1) % (PROBE_EVERY_NEAR if near else PROBE_EVERY) == 0


def probe_rows(count: int, most: int = PROBE_ROWS) -> list[int]:
    """Return the rows that are measured, at most so many, spread evenly over all."""
    size = min(count, most)
    return sorted({round(index * (count - 1) / max(1, size - 1)) for index in range(size)})
