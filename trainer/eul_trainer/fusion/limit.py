"""The smallest weight of retained data that keeps the rise of the retained loss within a limit."""

from __future__ import annotations

from collections.abc import Callable

from eul_serve.errors import InputError

WEIGHTS = (0.0, *(10 ** (step / 4) for step in range(-12, 13)))
"""Weights that are tried: none, and 0.001 to 1000 in steps of a quarter of a decade."""


def least_weight(rise: Callable[[float], float], limit: float) -> tuple[float, float]:
    """Find the smallest of WEIGHTS by bisection; a larger weight is taken to make the rise no larger.

    Args:
        rise: Gives the rise of the retained loss for a weight, nats.
        limit: Largest rise allowed, nats.

    Returns:
        The weight and its rise.

    Raises:
        InputError: Even the largest weight leaves a larger rise.
    """
    low, high = 1, len(WEIGHTS) - 1
    if (plain := rise(WEIGHTS[0])) <= limit:
        return WEIGHTS[0], plain
    best = rise(WEIGHTS[high])
    if best > limit:
        raise InputError(
            f"--retain-limit {limit}: even a weight of {WEIGHTS[high]:g} leaves a rise of {best:.3f} nats; raise the "
            "limit, give more retained rows, or fuse fewer layers"
        )
    while low < high:
        middle = (low + high) // 2
        found = rise(WEIGHTS[middle])
        if found <= limit:
            high, best = middle, found
        else:
            low = middle + 1
    return WEIGHTS[high], best
