"""Comparisons in words: distance to the twin, forget quality, utility, the paper's classifier.

Membership has a table of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eul_trainer.evaluation.shown.membership import PREFIX


def comparison_lines(comparisons: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one line for each comparison but membership.

    Args:
        comparisons: `comparisons` of `metrics.json`.

    Returns:
        Lines with system, set, measure, and the finding in words.
    """
    return [
        {"system": system, "set": name, "measure": measure.replace("_", " "), "words": _words(found)}
        for system, sets in comparisons.items()
        for name, measures in sets.items()
        for measure, found in measures.items()
        if not measure.startswith(PREFIX)
    ]


def _words(found: Any) -> str:  # noqa: ANN401  # a comparison, plain JSON
    """Return a comparison in words."""
    if not isinstance(found, Mapping):
        return f"{found:.3f}"
    if "p" in found:
        rows = f"{found['rows']} and {found['twin_rows']} rows"
        return f"p {found['p']:.3g}, statistic {found['statistic']:.3f}, {found['side']} the twin ({rows})"
    if "accuracy" in found:
        rows = f"{found['members']} forgotten, {found['others']} retained rows"
        return f"area {found['value']:.3f}, 95 % from {found['low']:.3f} to {found['high']:.3f} ({rows})"
    return f"{found['mean']:.3f} in the mean of {len(found['differences'])} measures"
