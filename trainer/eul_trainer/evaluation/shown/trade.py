"""What each system gives and takes: the change of what should be forgotten beside that of what is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eul_trainer.evaluation.roles import BASE


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One system on one set that should be forgotten."""

    set: str
    """Name of the set."""
    system: str
    """Name of the system."""
    forgotten: float
    """Change of the set's mean loss against the base model, nats."""
    kept: float
    """Change of the mean loss of what is kept, the mean over such sets, nats."""


def trades(summaries: Sequence[Mapping[str, Any]]) -> list[Trade]:
    """Return every system on every set that should be forgotten.

    Args:
        summaries: `sets` of `metrics.json`.

    Returns:
        One each, set by set; nothing where nothing is kept.
    """
    kept = [summary for summary in summaries if summary["kind"] == "retain"]
    return [
        Trade(
            set=summary["name"],
            system=system,
            forgotten=_change(summary, system),
            kept=sum(_change(other, system) for other in kept) / len(kept),
        )
        for summary in summaries
        if summary["kind"] == "forget" and kept
        for system in summary["systems"]
    ]


def _change(summary: Mapping[str, Any], system: str) -> float:
    return float(summary["systems"][system]["loss"] - summary["systems"][BASE]["loss"])
