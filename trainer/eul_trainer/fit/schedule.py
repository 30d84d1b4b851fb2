"""Which rows a step sees and how fast it learns: pure functions of the step, so that a resumed run is the same run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from eul_trainer.objectives.catalog import OBJECTIVES
from eul_trainer.settings import FitSettings

WARM_UP_STEPS = 3
"""Steps of linear warm-up, after which the rate stays as it is."""
WARM_UP_RATIO = 0.06
"""Share of all steps that the paper warms up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """The rows of one step, as indices into their sets."""

    forget: tuple[int, ...] = ()
    """Rows to forget."""
    retain: tuple[int, ...] = ()
    """Rows to keep."""
    refusal: tuple[int, ...] = ()
    """Rows to forget whose answer becomes the refusal."""
    masked: tuple[int, ...] = ()
    """Rows to forget whose missing words become the answer."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.forget) + len(self.retain) + len(self.refusal) + len(self.masked)


def draw(settings: FitSettings, step: int, forget: int, retain: int) -> Draw:
    """Return the rows of a step.

    Args:
        settings: The run's settings.
        step: The step, from 0.
        forget: Number of rows to forget.
        retain: Number of rows to keep.

    Returns:
        The rows.
    """
    spec = OBJECTIVES[settings.objective]
    if spec.printed:
        return _alternating(settings, step, forget, retain)
    lose = stream(settings.seed, 0, forget, step * settings.forget_rows, settings.forget_rows)
    refuse = stream(settings.seed, 2, forget, step * settings.refusal_rows, settings.refusal_rows)
    return Draw(
        forget=lose,
        retain=stream(settings.seed, 1, retain, step * settings.retain_rows, settings.retain_rows),
        refusal=lose if spec.paired else refuse,
    )


def all_drawn(settings: FitSettings, forget: int, retain: int) -> Draw:
    """Return the rows that a run can see in all its steps, each once and in order.

    Args:
        settings: The run's settings.
        forget: Number of rows to forget.
        retain: Number of rows to keep.

    Returns:
        The rows; of a large set that a short run never gets through, only those it gets to.
    """
    lost: set[int] = set()
    kept: set[int] = set()
    refused: set[int] = set()
    masked: set[int] = set()
    for step in range(settings.steps):
        found = draw(settings, step, forget, retain)
        for seen, rows in (
            (lost, found.forget),
            (kept, found.retain),
            (refused, found.refusal),
            (masked, found.masked),
        ):
            seen.update(rows)
        if len(lost) == forget and len(kept) == retain and (len(refused) == forget or not found.refusal):
            break
    return Draw(
        forget=tuple(sorted(lost)),
        retain=tuple(sorted(kept)),
        refusal=tuple(sorted(refused)),
        masked=tuple(sorted(masked)),
    )


def _alternating(settings: FitSettings, step: int, forget: int, retain: int) -> Draw:
    """One epoch of retained rows, then one of forgotten rows, and so on."""
    keep, lose = (-(-count // settings.batch_size) for count in (retain, forget))
    epoch, place = divmod(step, keep + lose)
    if place < keep:
        return Draw(retain=_slice(settings, 1, retain, epoch, place))
    forgotten = _slice(settings, 0, forget, epoch, place - keep)
    return Draw(forget=forgotten, masked=forgotten)


def _slice(settings: FitSettings, name: int, count: int, epoch: int, place: int) -> tuple[int, ...]:
    order = permutation(settings.seed, name, count, epoch)
    return order[place * settings.batch_size : (place + 1) * settings.batch_size]


def stream(seed: int, name: int, count: int, first: int, size: int) -> tuple[int, ...]:
    """Return part of an endless row of shuffled passes over `count` rows; `name` tells streams apart."""
    found: list[int] = []
    epoch, place = divmod(first, count)
    while len(found) < size:
        found += permutation(seed, name, count, epoch)[place : place + size - len(found)]
        epoch, place = epoch + 1, 0
    return tuple(found)


def permutation(seed: int, name: int, count: int, epoch: int) -> tuple[int, ...]:
    """Return the order of the rows in one pass."""
    generator = torch.Generator().manual_seed(((seed * 8 + name) << 24) + epoch)
    return tuple(torch.randperm(count, generator=generator).tolist())


def rate(settings: FitSettings, step: int) -> float:
    """Return the learning rate of a step."""
    if OBJECTIVES[settings.objective].printed:
        warm = max(1, round(WARM_UP_RATIO * settings.steps))
        if step < warm:
            return settings.learning_rate * (step + 1) / warm
        return settings.learning_rate * (settings.steps - step) / max(1, settings.steps - warm)
    return settings.learning_rate * min(1.0, (step + 1) / WARM_UP_STEPS)
