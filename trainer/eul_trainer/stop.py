"""When to stop: at a forget loss inside a band, measured on rows of the forget set every few steps."""

from __future__ import annotations

from dataclasses import dataclass

PROBE_ROWS = 15
"""Rows of the forget set that are measured."""
PROBE_EVERY = 4
"""Steps between two measurements."""
PROBE_FIRST = 8
"""Steps before the first measurement."""


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

    def distance(self, loss: float) -> float:
        """Return how far a loss is from the middle of the band."""
        return abs(loss - (self.low + self.high) / 2)

    def better(self, loss: float, best: float | None) -> bool:
        """Return whether a loss is nearer to the middle than the best so far."""
        return best is None or self.distance(loss) < self.distance(best)


def probe_now(step: int) -> bool:
    """Return whether the forget loss is measured after a step."""
    return step + 1 > PROBE_FIRST and (step + 1) % PROBE_EVERY == 0


def probe_rows(count: int) -> list[int]:
    """Return the rows that are measured, spread evenly over the forget set."""
    size = min(count, PROBE_ROWS)
    return sorted({round(index * (count - 1) / max(1, size - 1)) for index in range(size)})
