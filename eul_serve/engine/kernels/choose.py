"""The step of a worker, with the kernels that are the fastest on its device."""

from __future__ import annotations

import torch

from eul_serve.engine.compat import agree, has_triton
from eul_serve.engine.kernels.measure import Bounds, measure_kernels
from eul_serve.engine.kernels.table import KernelTable
from eul_serve.engine.slot_table import SlotTable
from eul_serve.engine.slots import Slots
from eul_serve.engine.step import Step


def fastest_step(table: SlotTable, max_tokens: int, width: int, dtype: torch.dtype) -> Step:
    """Measure the kernels and return the step that all blocks share; called by all tensor-parallel ranks together.

    Args:
        table: Rank and activation by slot.
        max_tokens: Most rows of a batch.
        width: Width d of the blocks' outputs.
        dtype: dtype of the weights and rows.

    Returns:
        An empty step.
    """
    device = table.device_ranks.device
    # Ranks of one model must compute alike, as each holds the same residual stream: one measures for all.
    if device.type == "cpu":
        bounds = Bounds(slots=len(table), max_rank=table.max_rank, max_tokens=max_tokens, width=width, dtype=dtype)
        kernels = KernelTable(agree(measure_kernels(bounds).fastest))
        return Step(table, max_tokens, device, kernels=kernels)
    if not has_triton():
        return Step(table, max_tokens, device, fixed_shape=True)
    from eul_serve.engine.kernels.device import DeviceKernels

    on_device = DeviceKernels(table, max_tokens, device)
    block = Slots(len(table), table.max_rank, width, dtype, device)
    on_device.fastest = agree(on_device.measure(block))
    return Step(table, max_tokens, device, on_device=on_device)
