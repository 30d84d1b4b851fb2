"""Which rows a step of full-weights training sees, and how fast it learns: pure functions of the step."""

from __future__ import annotations

from collections.abc import Sequence

from eul_trainer.fit.schedule import permutation
from eul_trainer.teaching.settings import TeachSettings

WINDOW = 8
"""Batches that are sorted by length together: rows of about equal length meet, and the order stays nearly random."""
_ROWS, _BATCHES = 5, 6  # names of the two random streams; the layer's own schedule uses lower ones


def steps(rows: int, settings: TeachSettings) -> int:
    """Return the number of optimiser steps for a number of rows."""
    return settings.epochs * -(-rows // settings.batch_size)


def epoch_batches(lengths: Sequence[int], settings: TeachSettings, epoch: int) -> list[tuple[int, ...]]:
    """Return the batches of one pass, each row in exactly one of them.

    Args:
        lengths: Tokens of each row.
        settings: Batch size and seed.
        epoch: The pass, from 0.

    Returns:
        Indices of the rows of each batch.
    """
    order = permutation(settings.seed, _ROWS, len(lengths), epoch)
    size, window = settings.batch_size, settings.batch_size * WINDOW
    found: list[tuple[int, ...]] = []
    for first in range(0, len(order), window):
        near = sorted(order[first : first + window], key=lambda row: lengths[row])
        found += [tuple(near[place : place + size]) for place in range(0, len(near), size)]
    return [found[place] for place in permutation(settings.seed, _BATCHES, len(found), epoch)]


def learning_rate(settings: TeachSettings, step: int, total: int) -> float:
    """Return the learning rate of a step: a linear rise, then a linear fall that would reach zero after the last step.

    Args:
        settings: Highest rate and share of the rise.
        step: The step, from 0.
        total: Number of steps of the run.

    Returns:
        The rate.
    """
    rise = max(1, round(settings.warm_up * total))
    if step < rise:
        return settings.learning_rate * (step + 1) / rise
    return settings.learning_rate * (total - step) / max(1, total - rise)
