"""Scaling a trained layer to its target: one factor on its output, found by measuring the forget loss.

The loss rises almost in proportion to the factor, so a secant finds it in a few measurements; a bracket keeps it safe.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from eul_trainer.fit.stop import Target
from eul_trainer.fit.training import Training

TOLERANCE = 0.05
"""Distance of the loss from the middle of the band that is near enough, nats."""
MOST = 12
"""Most measurements."""
MARGIN = 1.05
"""Smallest step up, as a factor."""
OUTPUTS = ("eul_up", "lora_B")
"""Parts of the names of parameters that a layer's output is proportional to."""


@torch.no_grad()
def scale_to_target(training: Training, before: float, target: Target) -> tuple[float, float]:
    """Scale what was trained so that the forget loss lies in the middle of its band.

    Args:
        training: The trained run; its parameters are changed in place.
        before: The forget loss of the base model, nats.
        target: The band.

    Returns:
        The factor, and the forget loss with it; 1 where all weights were trained, which have nothing to be scaled.
    """
    names = [name for name in training.parameters if any(part in name for part in OUTPUTS)]
    limit = training.settings.scale
    if limit == 1 or not names:
        return 1.0, training.measure()
    trained = {name: training.parameters[name].detach().clone() for name in names}

    def put(factor: float) -> None:
        for name, values in trained.items():
            training.parameters[name].copy_(values * factor)

    def measure(factor: float) -> float:
        put(factor)
        return training.measure()

    factor, after = find_factor(measure, before, target.middle, limit)
    put(factor)
    return factor, after


def find_factor(measure: Callable[[float], float], before: float, middle: float, limit: float) -> tuple[float, float]:
    """Find the factor at which the loss lies within TOLERANCE of a value: secant steps, kept inside of a bracket.

    Args:
        measure: Returns the loss at a factor.
        before: The loss at the factor 0.
        middle: The loss to reach.
        limit: Largest factor; its inverse is the smallest.

    Returns:
        The factor and its loss; where none is near enough, the nearest of those measured, of which 1 is one.
    """
    search = _Search(measure, middle)
    low, high = (0.0, before - middle), search.at(1.0)
    if low[1] >= 0:
        return search.nearest  # the base model is beyond it, and no factor brings the loss below the base model's
    while high[1] < 0 and not search.done and high[0] < limit:
        factor = min(max(_crossing(low, high), MARGIN * high[0]), 2 * high[0], limit)
        low, high = high, search.at(factor)
    while high[1] > 0 and not search.done and high[0] > 1 / limit:
        point = search.at(max(_between(low, high), 1 / limit))
        low, high = (point, high) if point[1] < 0 else (low, point)
    return search.nearest


class _Search:
    """The factors that were measured, and how far from the loss to reach each of them is."""

    def __init__(self, measure: Callable[[float], float], middle: float) -> None:
        self._measure, self._middle = measure, middle
        self._gaps: dict[float, float] = {}

    def at(self, factor: float) -> tuple[float, float]:
        """Measure at a factor, and return it with its gap."""
        self._gaps[factor] = self._measure(factor) - self._middle
        return factor, self._gaps[factor]

    @property
    def nearest(self) -> tuple[float, float]:
        """The factor with the smallest gap, and its loss."""
        factor = min(self._gaps, key=lambda factor: abs(self._gaps[factor]))
        return factor, self._middle + self._gaps[factor]

    @property
    def done(self) -> bool:
        """Whether a factor is near enough, or there were measurements enough."""
        return len(self._gaps) >= MOST or min(map(abs, self._gaps.values())) <= TOLERANCE


def _crossing(low: tuple[float, float], high: tuple[float, float]) -> float:
    """Return where the line through two points is zero; infinity where it does not rise."""
    rise = high[1] - low[1]
    return high[0] - high[1] * (high[0] - low[0]) / rise if rise > 0 else math.inf


def _between(low: tuple[float, float], high: tuple[float, float]) -> float:
    """Return the crossing, kept away from both ends by a tenth of the way, so that the bracket shrinks each time."""
    guard = (high[0] - low[0]) / 10
    return min(max(_crossing(low, high), low[0] + guard), high[0] - guard)
