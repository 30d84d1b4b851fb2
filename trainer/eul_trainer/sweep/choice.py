"""The Pareto set of a sweep, and the stated rule that picks one point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eul_trainer.fit.stop import Target

RULE = (
    "the least change of the held-out retain loss among the points whose held-out forget loss lies inside of the target"
    " band; where there is none, the point nearest to the band"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one point gave."""

    name: str
    """The point's name."""
    varied: dict[str, float]
    """Its varied values."""
    forget: float | None = None
    """Loss on the held-out forget rows, nats; None where the run failed."""
    retain: float | None = None
    """Loss on the held-out retain rows, nats."""
    forget_before: float | None = None
    """The same of the base model."""
    retain_before: float | None = None
    """The same of the base model."""
    steps: int = 0
    """Steps of the chosen state."""
    seconds: float = 0.0
    """Seconds of the call that finished it."""
    failed: str | None = None
    """Why the run failed, in words; such as a loss that was not finite."""

    @property
    def retain_change(self) -> float:
        """Change of the held-out retain loss either way, nats: a layer is to leave it as it is."""
        if self.retain is None or self.retain_before is None:
            return float("inf")
        return abs(self.retain - self.retain_before)

    def miss(self, target: Target) -> float:
        """Return how far the forget loss lies outside of the band, nats; 0 inside."""
        if self.forget is None:
            return float("inf")
        return max(0.0, target.low - self.forget, self.forget - target.high)

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON."""
        return asdict(self)


def pareto(outcomes: Sequence[Outcome], target: Target) -> list[Outcome]:
    """Return the points that no other beats: none is as near to the band and changes as little, and one of both less.

    Args:
        outcomes: All points.
        target: The band.

    Returns:
        Those of them that did not fail and are not beaten, in their order.
    """

    def cost(outcome: Outcome) -> tuple[float, float]:
        return outcome.miss(target), outcome.retain_change

    def beaten(outcome: Outcome) -> bool:
        mine = cost(outcome)
        return any(theirs != mine and theirs[0] <= mine[0] and theirs[1] <= mine[1] for theirs in map(cost, outcomes))

    return [outcome for outcome in outcomes if outcome.failed is None and not beaten(outcome)]


def choose(outcomes: Sequence[Outcome], target: Target) -> Outcome | None:
    """Pick by RULE; of equals the first.

    Args:
        outcomes: All points.
        target: The band.

    Returns:
        The point, or None where all failed.
    """
    good = [outcome for outcome in outcomes if outcome.failed is None]
    inside = [outcome for outcome in good if outcome.miss(target) == 0]
    if inside:
        return min(inside, key=lambda outcome: outcome.retain_change)
    return min(good, key=lambda outcome: (outcome.miss(target), outcome.retain_change), default=None)


def table(outcomes: Sequence[Outcome], chosen: Outcome | None, front: Sequence[Outcome]) -> list[str]:
    """Return a Markdown table of all points."""
    lines = ["| point | forget loss | retain change | steps | |", "|---|---|---|---|---|"]
    for found in outcomes:
        if found.failed is not None:
            lines.append(f"| {found.name} | | | | failed: {found.failed} |")
            continue
        note = "chosen" if found == chosen else "Pareto" if found in front else ""
        lines.append(f"| {found.name} | {found.forget:.3f} | {found.retain_change:.4f} | {found.steps} | {note} |")
    return lines
