"""From rows to the numbers of a report: means by set and group, for the base model and for each bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from eul_trainer.metrics.change import unchanged_share
from eul_trainer.metrics.probability import probability

Kind = Literal["forget", "retain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one system answers one row."""

    loss: float
    """Mean cross-entropy over the reference answer's tokens, nats."""
    accuracy: float
    """Share of those tokens that are the system's first choice, under teacher forcing: exact memorisation."""
    extraction_strength: float
    """Share of the answer, from its end, that the system completes by itself."""
    divergence: float | None
    """Mean KL(base || system) of those tokens, nats; None for the base model."""
    rouge_l: float
    """ROUGE-L recall of the greedy answer."""
    rouge_l_f1: float
    """ROUGE-L F1 of it: verbatim memorisation for the head of a text, knowledge memorisation for a question."""
    gibberish: bool
    """Whether the greedy answer is no longer language (metrics/gibberish.py)."""
    answer: str
    """The greedy answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """One row, and how each system answers it."""

    set: str
    """Name of the row's set."""
    kind: Kind
    """Whether the set is to be forgotten or kept."""
    group: str
    """The row's group within the set."""
    prompt: str
    """The question."""
    completion: str
    """The reference answer."""
    systems: dict[str, Result]
    """Results by system: `base`, and the bundles by name."""


def summarise(rows: Sequence[RowResult]) -> list[dict[str, Any]]:
    """Return one summary per set, in the order of the rows.

    Args:
        rows: The rows of all sets.

    Returns:
        Per set: name, kind, rows, systems (means by system), and groups with the same.
    """
    summaries = []
    for name in dict.fromkeys(row.set for row in rows):
        mine = [row for row in rows if row.set == name]
        groups = {
            group: [row for row in mine if row.group == group] for group in dict.fromkeys(row.group for row in mine)
        }
        summaries.append(
            {
                "name": name,
                "kind": mine[0].kind,
                "rows": len(mine),
                "systems": means(mine),
                "groups": {group: {"rows": len(part), "systems": means(part)} for group, part in groups.items()},
            }
        )
    return summaries


def means(rows: Sequence[RowResult]) -> dict[str, dict[str, float | None]]:
    """Return what a report shows of rows, by system.

    Args:
        rows: The rows, at least one.

    Returns:
        Means over the rows of everything that Result has, of the probability exp(-loss), and of whether the answer is
        still the base model's (`unchanged`). Of the base model the last and the divergence are None.
    """
    found: dict[str, dict[str, float | None]] = {}
    for system in rows[0].systems:
        results = [row.systems[system] for row in rows]
        found[system] = {
            "loss": _mean([result.loss for result in results]),
            "probability": _mean([probability(result.loss) for result in results]),
            "accuracy": _mean([result.accuracy for result in results]),
            "extraction_strength": _mean([result.extraction_strength for result in results]),
            "rouge_l": _mean([result.rouge_l for result in results]),
            "rouge_l_f1": _mean([result.rouge_l_f1 for result in results]),
            "gibberish": _mean([float(result.gibberish) for result in results]),
            **_changes(rows, system),
        }
    return found


def _changes(rows: Sequence[RowResult], system: str) -> dict[str, float | None]:
    first = next(iter(rows[0].systems))
    if system == first:
        return {"unchanged": None, "divergence": None}
    before, after = ([row.systems[name].answer for row in rows] for name in (first, system))
    divergences = [row.systems[system].divergence for row in rows]
    return {
        "unchanged": round(unchanged_share(before, after), 6),
        "divergence": None if None in divergences else _mean([value for value in divergences if value is not None]),
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)


def to_json(rows: Sequence[RowResult]) -> list[dict[str, Any]]:
    """Return the rows as plain JSON."""
    return [asdict(row) for row in rows]
