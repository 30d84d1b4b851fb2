"""What could not be measured, each reason once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def gap_lines(gaps: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the gaps, those alike together.

    Args:
        gaps: `gaps` of `metrics.json`.

    Returns:
        Lines with set, measure, why, and under `systems` the names of all that lack it.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for gap in gaps:
        found.setdefault((gap["set"], gap["measure"], gap["why"]), []).append(gap["system"])
    return [
        {"set": name, "measure": measure.replace("_", " "), "why": why, "systems": ", ".join(systems)}
        for (name, measure, why), systems in found.items()
    ]
