"""Distance to a retrained twin: the nearer a model's measures are to those of one that never saw the data, the better.

Both sides count: a model that has forgotten more than its twin tells that something was there, and is as far from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from eul_trainer.metrics.undefined import UndefinedError


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinDistance:
    """How far a model is from its twin."""

    mean: float
    """Mean absolute difference over the measures that both have, in their common unit."""
    differences: Mapping[str, float]
    """Each measure's difference; above 0 where the model's is larger than the twin's."""
    missing: tuple[str, ...]
    """Measures that one of the two does not have: gaps, not zeros."""


def twin_distance(found: Mapping[str, float], twin: Mapping[str, float]) -> TwinDistance:
    """Compare a model's measures with its twin's.

    Args:
        found: Measures of the model by name, all of one unit; not a number where a measure has no value.
        twin: The same of the twin.

    Returns:
        The distance.

    Raises:
        UndefinedError: There is no measure that both have.
    """
    names = dict.fromkeys([*found, *twin])
    both = [
        name for name in names if math.isfinite(found.get(name, math.nan)) and math.isfinite(twin.get(name, math.nan))
    ]
    if not both:
        raise UndefinedError("distance to the twin: no measure has a value on both sides; measure the twin's rows too")
    differences = {name: found[name] - twin[name] for name in both}
    return TwinDistance(
        mean=math.fsum(map(abs, differences.values())) / len(both),
        differences=differences,
        missing=tuple(name for name in names if name not in differences),
    )
