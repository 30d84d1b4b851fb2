"""Which rows of the running batch belong to which slot: made once per engine step and read by every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from eul_serve.engine.kernels.group import Group, Places, Run, as_places
from eul_serve.engine.kernels.stacked import masked
from eul_serve.engine.kernels.table import KernelTable, Shape
from eul_serve.engine.slot_table import SlotTable

if TYPE_CHECKING:  # needs Triton, which CPUs have not
    from eul_serve.engine.kernels.device import DeviceKernels


class Step:
    """The rows of the batch that is running now, grouped by slot, and what every block runs on them."""

    def __init__(
        self,
        table: SlotTable,
        max_tokens: int,
        device: torch.device,
        *,
        kernels: KernelTable | None = None,
        on_device: DeviceKernels | None = None,
        fixed_shape: bool = False,
    ) -> None:
        """Make an empty step.

        Args:
            table: Rank and activation by slot.
            max_tokens: Most rows of a batch.
            device: Where the rows' indices are needed.
            kernels: Which kernel is the fastest for which shape; None takes the usual ones.
            on_device: What a GPU runs in their place: kernels that read the batch at constant addresses, as recorded
                CUDA graphs must.
            fixed_shape: Keep a mask of constant address and shape, for graphs where there is no Triton.
        """
        self.table, self.device, self.on_device = table, device, on_device
        self.kernels = kernels or KernelTable({})
        self.runs: tuple[Run, ...] = ()
        """What every block runs, one after the other; empty where the batch has no bundle."""
        self.mask = torch.zeros(max_tokens, len(table), dtype=torch.bool, device=device) if fixed_shape else None
        """Which row belongs to which slot, (max_tokens, slots)."""

    @property
    def fastest(self) -> dict[Shape, str] | dict[int, str]:
        """The kernels that were measured to be the fastest, by shape, or on a GPU by number of rows."""
        return self.kernels.fastest if self.on_device is None else self.on_device.fastest

    def alike(self, table: SlotTable, max_tokens: int) -> Step:
        """Return an empty step that computes as this one does.

        Args:
            table: Rank and activation by slot.
            max_tokens: Most rows of a batch.

        Returns:
            A step of its own, with the same kernels.
        """
        on_device = None if self.on_device is None else self.on_device.alike(table, max_tokens)
        fixed_shape = self.mask is not None
        return Step(table, max_tokens, self.device, kernels=self.kernels, on_device=on_device, fixed_shape=fixed_shape)

    def set_rows(self, slot_of_row: Sequence[int]) -> None:
        """Take up a batch.

        Args:
            slot_of_row: The slot of every row, -1 for a row without a bundle.
        """
        slots = np.asarray(slot_of_row, dtype=np.int64)
        if self.on_device is not None:
            self.on_device.fill(slots)
            self.runs = (self.on_device.run,) if (slots >= 0).any() else ()
        elif self.mask is None:
            groups = group_rows(slots, self.table, self.device)
            self.runs = tuple(self.kernels.choose(group)(group) for group in groups)
        else:
            self._fill_mask(slots, self.mask)

    def _fill_mask(self, slots: np.ndarray, mask: torch.Tensor) -> None:
        fresh = torch.zeros(mask.shape, dtype=torch.bool)
        used = np.flatnonzero(slots >= 0)
        fresh[torch.from_numpy(used), torch.from_numpy(slots[used])] = True
        mask.copy_(fresh)
        self.runs = (masked(self.table, mask),) if len(used) else ()


def group_rows(slot_of_row: np.ndarray, table: SlotTable, device: torch.device) -> list[Group]:
    """Group the slots of a batch by rank, activation and number of rows.

    Args:
        slot_of_row: The slot of every row, -1 for a row without a bundle, (rows).
        table: Rank and activation by slot; a slot of rank 0 has no layer, and its rows are left out.
        device: Where the indices are needed.

    Returns:
        Groups; each row with a layer is in exactly one.
    """
    order = np.argsort(slot_of_row, kind="stable")
    slots, starts, counts = np.unique(slot_of_row[order], return_index=True, return_counts=True)
    alike: dict[tuple[int, int, str], list[tuple[int, np.ndarray]]] = {}
    for slot, start, count in zip(slots.tolist(), starts.tolist(), counts.tolist(), strict=True):
        if slot >= 0 and (rank := table.ranks[slot]):
            rows = order[start : start + count]
            alike.setdefault((count, rank, table.activations[slot]), []).append((slot, rows))
    return [_group(members, key, device) for key, members in alike.items()]


def _group(members: list[tuple[int, np.ndarray]], key: tuple[int, int, str], device: torch.device) -> Group:
    each, rank, activation = key
    slots = torch.tensor([slot for slot, _ in members])
    rows = torch.from_numpy(np.concatenate([part for _, part in members]))
    return Group(_on(device, slots), _on(device, rows), each, rank, activation)


def _on(device: torch.device, numbers: torch.Tensor) -> Places:
    places = as_places(numbers)
    return places if isinstance(places, slice) else places.to(device)
