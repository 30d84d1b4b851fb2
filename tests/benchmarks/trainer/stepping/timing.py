"""Timing ways of taking a step side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
"""Largest difference of two losses, relative to the larger of 1 and the loss."""

Step = Callable[[int], float | None]
"""Takes the step of a number and returns its loss, or None where it has none to compare."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one step took."""

    seconds: float
    """By the clock."""
    processor: float
    """Of the processor, all threads together: what other work on the machine hardly changes."""


def interleaved(
    ways: Mapping[str, Step], repeats: int, tolerance: float, align: Callable[[], None]
) -> tuple[dict[str, list[Taken]], float]:
    """Take the same steps in every way, one after the other, so that a busy machine slows all of them alike.

    Args:
        ways: The ways by name.
        repeats: Steps that are counted, after one that warms up.
        tolerance: Largest difference of the losses.
        align: Gives all ways the same parameters; called after every step, and not timed.

    Returns:
        What each step took, by name, and the largest difference of the losses that was seen.

    Raises:
        AssertionError: Two ways disagree about a loss: they are not doing the same.
    """
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    widest = 0.0
    for number in range(repeats + 1):
        losses = {}
        for name, step in ways.items():
            start, used = time.perf_counter(), time.process_time()
            loss = step(number)
            if number:
                taken[name].append(Taken(time.perf_counter() - start, time.process_time() - used))
            if loss is not None:
                losses[name] = loss
        gap = (max(losses.values()) - min(losses.values())) / max(1.0, *map(abs, losses.values()))
        widest = max(widest, gap)
        if gap > tolerance:
            raise AssertionError(f"step {number}: losses differ by {gap:.2g}: {losses}")
        align()
    return taken, widest


def summarised(taken: list[Taken]) -> dict[str, float]:
    """Return the median, least and most seconds of a step, and the median of the processor's."""
    seconds = [step.seconds for step in taken]
    return {
        "median": statistics.median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        "processor": statistics.median(step.processor for step in taken),
    }
