"""What an attack brought back: measures of each system under it, and where they lie between not knowing and knowing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eul_trainer.evaluation.roles import BASE, TWIN
from eul_trainer.metrics.summary import means

if TYPE_CHECKING:
    from eul_trainer.evaluation.evaluate import Evaluation

KNOWING = ("probability", "rouge_l", "chosen", "seen")
"""Measures that are higher for those who know."""
LEAST_GAP = 0.05
"""Least difference between the two ends, in the measure's unit: where they are nearer, nothing can be brought back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackResult:
    """One attack on one set of forgotten rows."""

    kind: str
    """The attack's family, such as `prompts`."""
    name: str
    """Its name."""
    budget: float
    """What it costs the attacker, in the unit of its family: words, rows, steps, bits or answers."""
    set: str
    """The forgotten rows' set."""
    rows: int
    """Rows that were asked."""
    systems: Mapping[str, Mapping[str, float | None]]
    """Measures by system."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON, with the share brought back by system and measure."""
        return {**asdict(self), "recovered": {name: self.recovered(name) for name in self.systems}}

    def recovered(self, system: str) -> dict[str, float | None]:
        """Return how much of what the base model knows the attack brings out of a system.

        Args:
            system: The system.

        Returns:
            By each measure of KNOWING that the attack has: 0 where the system does as the twin does under the same
            attack, 1 where it does as the base model does; None where there is no twin, or the two are hardly apart.
        """
        return {measure: self._share(system, measure) for measure in KNOWING if measure in self.systems[system]}

    def _share(self, system: str, measure: str) -> float | None:
        ends = [self.systems.get(name, {}).get(measure) for name in (TWIN, BASE)]
        found = self.systems[system].get(measure)
        if found is None or ends[0] is None or ends[1] is None or ends[1] - ends[0] < LEAST_GAP:
            return None
        return round((found - ends[0]) / (ends[1] - ends[0]), 6)


def set_results(evaluation: Evaluation, chosen: str, kind: str, name: str, budget: float) -> list[AttackResult]:
    """Return what an evaluation says of one set.

    Args:
        evaluation: The evaluation under attack.
        chosen: The set's name.
        kind: The attack's family.
        name: The attack.
        budget: What it costs.

    Returns:
        One result; none where the set has no row.
    """
    rows = [row for row in evaluation.rows if row.set == chosen]
    if not rows:
        return []
    return [AttackResult(kind=kind, name=name, budget=budget, set=chosen, rows=len(rows), systems=means(rows))]
