"""All units of all slots over every row behind a mask: one large product, for few slots of the full rank."""

from __future__ import annotations

import torch
from torch.nn import functional

from eul_serve.engine.kernels.group import Group, Run, put_rows, take_rows
from eul_serve.engine.slot_table import CODES, SlotTable
from eul_serve.engine.slots import Slots
from eul_serve.format.weights import ACTIVATION_FUNCTIONS


def stacked(group: Group) -> Run:
    """Return what computes a group of neighbouring slots as one product, each row masked to its own slot's units.

    Args:
        group: The slots and their rows; the slots are neighbours.

    Returns:
        What every block runs.
    """
    activate = ACTIVATION_FUNCTIONS[group.activation]
    own = torch.eye(group.count, dtype=torch.bool).repeat_interleave(group.each, 0).unsqueeze(2)

    def run(output: torch.Tensor, weights: Slots) -> None:
        part = take_rows(output, group.rows)
        down, bias, up = (kept[group.slots] for kept in (weights.down, weights.bias, weights.up))
        hidden = functional.linear(part, down.view(-1, weights.width), bias.view(-1))
        chosen = _choose(own, activate(hidden).view(len(part), group.count, -1))
        part.addmm_(chosen, up.view(-1, weights.width))
        put_rows(output, group.rows, part)

    return run


def masked(table: SlotTable, mask: torch.Tensor) -> Run:
    """Return what computes all slots, used or not, so that nothing depends on the batch and a CUDA graph can record it.

    Args:
        table: Activation of every slot.
        mask: Which row belongs to which slot, (at least rows, slots); read when the graph is played.

    Returns:
        What every block runs.
    """

    def run(output: torch.Tensor, weights: Slots) -> None:
        hidden = functional.linear(output, weights.down.view(-1, weights.width), weights.bias.view(-1))
        hidden = hidden.view(len(output), len(table), -1)
        codes = table.device_codes.view(1, -1, 1)
        active = functional.relu(hidden)
        for name, code in CODES.items():
            if name != "relu":
                active = torch.where(codes == code, ACTIVATION_FUNCTIONS[name](hidden), active)
        output.addmm_(_choose(mask[: len(output)].unsqueeze(2), active), weights.up.view(-1, weights.width))

    return run


def _choose(own: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return the units (rows, slots, rank) of each row's own slot, the others zero, as (rows, slots x rank)."""
    # Chosen, not multiplied: an overflow in another bundle's units must not reach this row as 0 * inf.
    return torch.where(own, hidden, torch.zeros((), dtype=hidden.dtype, device=hidden.device)).view(len(hidden), -1)
