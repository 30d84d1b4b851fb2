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
    parts: tuple[tuple[int, Places], ...]
    """Slot and rows of each, for kernels that take them one by one."""
    each: int
    """Rows of every slot."""
    rank: int
    """Units of every slot."""
    activation: str
    """Name of the activation."""

    @property
    def count(self) -> int:
        """How many slots there are."""
        return len(self.parts)

    @property
    def neighbours(self) -> bool:
        """Whether the slots' weights lie one behind the other."""
        return isinstance(self.slots, slice)


Kernel = Callable[[Group], Run]
"""Makes, once per step, what every block then runs."""


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
