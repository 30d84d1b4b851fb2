"""Timing ways of taking a step side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference of two losses, relative to the larger of 1 and the loss."""

Step = Callable[[int], float | None]
"""Takes the step of a number and returns its loss, or None where it has none to compare."""


def interleaved(ways: Mapping[str, Step], repeats: int, tolerance: float) -> dict[str, list[float]]:
    """Take the same steps in every way, one after the other, so that a busy machine slows all of them alike.

    Args:
        ways: The ways by name.
        repeats: Steps that are counted, after one that warms up.
        tolerance: Largest difference of the losses.

    Returns:
        Seconds of each step, by name.

    Raises:
        AssertionError: Two ways disagree about a loss: they are not doing the same.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        losses = {}
        for name, step in ways.items():
            start = time.perf_counter()
            loss = step(number)
            if number:
                seconds[name].append(time.perf_counter() - start)
            if loss is not None:
                losses[name] = loss
        gap = max(losses.values()) - min(losses.values())
        if gap > tolerance * max(1.0, *map(abs, losses.values())):
            raise AssertionError(f"step {number}: losses differ by {gap:.2g}: {losses}")
    return seconds


def summarised(seconds: list[float]) -> dict[str, Any]:
    """Return median, least and most, in seconds."""
    return {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
