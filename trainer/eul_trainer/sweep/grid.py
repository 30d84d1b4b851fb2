"""The points of a sweep: every combination of the varied values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eul_serve.errors import InputError
from eul_trainer.objectives.catalog import make_weights
from eul_trainer.settings import FitSettings, override

STRENGTH = "strength"
"""Varied by this name, the weights that push forgetting are multiplied by a factor."""
FORGET_WEIGHTS = ("forget", "gamma", "steering")
"""Those weights, as far as the objective has them."""
WEIGHT = "weight."
"""What a weight of the objective begins with, as in `weight.alpha`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One combination."""

    name: str
    """Its name, which is made of its values: it stays the same when values are added to the grid."""
    varied: dict[str, float]
    """The varied values."""
    settings: FitSettings
    """All settings."""


def parse_axis(text: str) -> tuple[str, list[float]]:
    """Read one `--vary` of the command line.

    Args:
        text: Such as `learning-rate=1e-3,2e-3`.

    Returns:
        The name, with underscores, and its values.

    Raises:
        InputError: Not a name, an equals sign and numbers.
    """
    name, sign, values = text.partition("=")
    try:
        found = [float(value) for value in values.split(",")]
    except ValueError:
        found = []
    if not sign or not name or not found:
        raise InputError(f"--vary {text!r}: expected NAME=NUMBER,NUMBER..., as in learning-rate=1e-3,2e-3")
    return name.replace("-", "_"), list(dict.fromkeys(found))


def points(settings: FitSettings, axes: Mapping[str, Sequence[float]]) -> list[Point]:
    """Return the points in a fixed order, the last axis running fastest.

    Args:
        settings: Settings of every point.
        axes: Values by name.

    Returns:
        The points.

    Raises:
        InputError: A name is no number among the settings, or a value is refused.
    """
    found = []
    for values in itertools.product(*axes.values()):
        varied = dict(zip(axes, values, strict=True))
        at = settings
        for name, value in varied.items():
            at = _vary(at, name, value)
        name = "_".join(f"{name.replace('_', '-')}={value:g}" for name, value in varied.items())
        found.append(Point(name=name, varied=varied, settings=at))
    return found


def _vary(settings: FitSettings, name: str, value: float) -> FitSettings:
    if name == STRENGTH:
        weights = make_weights(settings)
        scaled = {key: getattr(weights, key) * value for key in FORGET_WEIGHTS if hasattr(weights, key)}
        return override(settings, {"weights": settings.weights | scaled})
    if name.startswith(WEIGHT):
        return override(settings, {"weights": settings.weights | {name.removeprefix(WEIGHT): value}})
    now = settings.to_json().get(name)
    numbers = [key for key, known in settings.to_json().items() if type(known) in (int, float)]
    if name not in numbers:
        raise InputError(
            f"--vary {name.replace('_', '-')}: expected {STRENGTH}, {WEIGHT}NAME or a number among the settings: "
            f"{', '.join(key.replace('_', '-') for key in numbers)}"
        )
    if isinstance(now, int) and value != int(value):
        raise InputError(f"--vary {name.replace('_', '-')}: expected whole numbers, found {value:g}")
    return override(settings, {name: int(value) if isinstance(now, int) else value})
