"""Which rows of the running batch belong to which slot: made once per engine step and read by every block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

Rows = slice | torch.Tensor
"""Rows of one slot: a slice where they are neighbours, else their indices."""


class Step:
    """The rows of the batch that is running now, grouped by slot."""

    def __init__(self, slots: int, max_tokens: int, device: torch.device, *, fixed_shape: bool) -> None:
        """Make an empty step.

        Args:
            slots: Bundles that can be in one batch.
            max_tokens: Most rows of a batch.
            device: Where the rows' indices are needed.
            fixed_shape: Keep a mask of constant address and shape, which recorded CUDA graphs read again.
        """
        self.device = device
        self.groups: tuple[tuple[int, Rows], ...] = ()
        """Slot and rows of every bundle in the batch."""
        self.mask = torch.zeros(max_tokens, slots, dtype=torch.bool, device=device) if fixed_shape else None
        """Which row belongs to which slot, (max_tokens, slots)."""

    def set_rows(self, slot_of_row: Sequence[int]) -> None:
        """Take up a batch.

        Args:
            slot_of_row: The slot of every row, -1 for a row without a bundle.
        """
        slots = np.asarray(slot_of_row, dtype=np.int64)
        self.groups = tuple(
            (int(slot), self._rows(np.flatnonzero(slots == slot))) for slot in np.unique(slots) if slot >= 0
        )
        if self.mask is not None:
            fresh = torch.zeros(self.mask.shape, dtype=torch.bool)
            used = np.flatnonzero(slots >= 0)
            fresh[torch.from_numpy(used), torch.from_numpy(slots[used])] = True
            self.mask.copy_(fresh)

    def _rows(self, rows: np.ndarray) -> Rows:
        first, end = int(rows[0]), int(rows[-1]) + 1
        if end - first == len(rows):
            return slice(first, end)
        return torch.from_numpy(rows).to(self.device)
