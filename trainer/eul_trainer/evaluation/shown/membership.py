"""Membership inference: each area under a ROC curve with its interval, flat as a table has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "membership_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One attack on one set under one system."""

    system: str
    """Name of the system."""
    set: str
    """Name of the set."""
    attack: str
    """What tells members from others, such as `min k`."""
    value: float
    """Area under the ROC curve; 0.5 is a guess."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    members: int
    """Rows that should be forgotten."""
    others: int
    """Rows that no model saw."""
    privleak: float | None
    """MUSE's PrivLeak in per cent; 0 is the twin's; None without a twin."""
    accuracy: float | None
    """Share of rows that a trained attack sorts rightly; None for attacks without training."""


def intervals(comparisons: Mapping[str, Any]) -> list[Interval]:
    """Return every area.

    Args:
        comparisons: `comparisons` of `metrics.json`.

    Returns:
        One line for each system, set and attack.
    """
    return [
        Interval(
            system=system,
            set=name,
            attack=measure.removeprefix(PREFIX).replace("_", " "),
            **{key: found[key] for key in ("value", "low", "high", "members", "others")},
            privleak=found.get("privleak"),
            accuracy=found.get("accuracy"),
        )
        for system, sets in comparisons.items()
        for name, measures in sets.items()
        for measure, found in measures.items()
        if measure.startswith(PREFIX)
    ]
