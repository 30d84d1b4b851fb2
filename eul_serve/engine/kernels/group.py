"""Slots of a batch that can be computed together: equal rank, activation and number of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from eul_serve.engine.slots import Slots

Places = slice | torch.Tensor
"""Numbers of slots or rows: a slice where they are neighbours, else a tensor of them."""

Run = Callable[[torch.Tensor, Slots], None]
"""Adds the layers of one block to its output (rows, d), in place."""


@dataclass(frozen=True, slots=True)
class Group:
    """Slots that the batch uses, with their rows."""

    slots: Places
    """Numbers of the slots, ascending, (count)."""
    rows: Places
    """Their rows, slot by slot, (count x each)."""
    each: int
    """Rows of every slot."""
    rank: int
    """Units of every slot."""
    activation: str
    """Name of the activation."""

    @property
    def count(self) -> int:
        """How many slots there are."""
        return _count(self.slots)

    @property
    def neighbours(self) -> bool:
        """Whether the slots' weights lie one behind the other."""
        return isinstance(self.slots, slice)

    def parts(self) -> tuple[tuple[int, Places], ...]:
        """Return slot and rows of each, for kernels that take them one by one."""
        slots, rows = _numbers(self.slots), _numbers(self.rows)
        cuts = range(0, len(rows), self.each)
        return tuple((int(slot), as_places(rows[cut : cut + self.each])) for slot, cut in zip(slots, cuts, strict=True))


Kernel = Callable[[Group], Run]
"""Makes, once per step, what every block then runs."""


def as_places(numbers: torch.Tensor) -> Places:
    """Return numbers as a slice where they are neighbours.

    Args:
        numbers: Numbers of slots or rows, at least one.

    Returns:
        The slice, or the numbers themselves.
    """
    first, end = int(numbers[0]), int(numbers[0]) + len(numbers)
    return slice(first, end) if numbers.tolist() == list(range(first, end)) else numbers


def _count(places: Places) -> int:
    return places.stop - places.start if isinstance(places, slice) else len(places)


def _numbers(places: Places) -> torch.Tensor:
    return torch.arange(places.start, places.stop) if isinstance(places, slice) else places


def take_rows(output: torch.Tensor, rows: Places) -> torch.Tensor:
    """Return rows of a block's output: a view of neighbours, else a copy that `put_rows` brings back.

    Args:
        output: Output y of a block, (rows, d).
        rows: Which.

    Returns:
        The rows, (chosen, d).
    """
    return output[rows] if isinstance(rows, slice) else output.index_select(0, rows)


def put_rows(output: torch.Tensor, rows: Places, part: torch.Tensor) -> None:
    """Write back what `take_rows` gave, if it was a copy.

    Args:
        output: Output y of a block, (rows, d).
        rows: Which.
        part: Their new values, (chosen, d).
    """
    if not isinstance(rows, slice):
        output.index_copy_(0, rows, part)
