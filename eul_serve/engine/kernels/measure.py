"""Measure the kernels on this machine, with this model's width and dtype, and say which is the fastest where."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np
import torch

from eul_serve.engine.kernels.group import Group, Run
from eul_serve.engine.kernels.table import KERNELS, KernelTable, Shape, usual
from eul_serve.engine.slot_table import SlotTable
from eul_serve.engine.slots import Slots
from eul_serve.engine.step import group_rows

COUNTS, ROWS, RANKS = (2, 8, 32, 128), (1, 4, 16, 64), (8, 32, 128, 512)
"""The grid; a shape between takes the nearest by factor."""
MARGIN = 0.85
"""Another kernel must need at most this part of the usual one's time, so that noise does not choose."""
MOST_PRODUCTS = 4e7
"""Multiplications above which a shape is not measured: the products are large, and slot by slot costs nothing."""
MOST_WEIGHTS = 32 * 2**20
"""Bytes of weights to measure with: several blocks' worth, so that caches are as cold as between blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a batch of the engine can be."""

    slots: int
    """Bundles that can be in one batch."""
    max_rank: int
    """Highest rank of a bundle."""
    max_tokens: int
    """Most rows of a batch."""
    width: int
    """Width d of the blocks' outputs."""
    dtype: torch.dtype
    """dtype of the weights and rows."""


def measure_kernels(bounds: Bounds) -> KernelTable:
    """Return the fastest kernel for every shape that the engine can meet, on the CPU.

    Takes one to three seconds; uses weights of its own.

    Args:
        bounds: What a batch can be.

    Returns:
        The table.
    """
    fastest = {}
    for shape in grid(bounds):
        seconds = measure_shape(shape, bounds)
        least = min(seconds, key=seconds.__getitem__)
        clear = seconds[least] <= MARGIN * seconds[usual(shape)]
        fastest[shape] = least if clear else usual(shape)
    return KernelTable(fastest)


def grid(bounds: Bounds) -> list[Shape]:
    """Return the shapes to measure.

    Args:
        bounds: What a batch can be.

    Returns:
        Shapes of two slots or more, within the bounds and small enough for the choice to matter.
    """
    shapes = (
        Shape(count, each, rank, neighbours)
        for count, each, rank, neighbours in itertools.product(COUNTS, ROWS, RANKS, (True, False))
        if count <= bounds.slots and count * each <= bounds.max_tokens and rank <= bounds.max_rank
    )
    return [shape for shape in shapes if shape.count * shape.each * shape.rank * bounds.width <= MOST_PRODUCTS]


@torch.inference_mode()
def measure_shape(shape: Shape, bounds: Bounds, repeats: int = 5) -> dict[str, float]:
    """Return the seconds that every kernel needs for one block.

    Args:
        shape: Slots, rows and rank.
        bounds: The engine's width, dtype and highest rank.
        repeats: How often to measure.

    Returns:
        Least seconds by name of the kernel: whatever else the machine does only adds to them.
    """
    blocks = _blocks(shape, bounds)
    output = torch.zeros(shape.count * shape.each, bounds.width, dtype=bounds.dtype)
    group = _group(shape)
    runs = {name: KERNELS[name](group) for name in KERNELS if name != "stacked" or _stackable(shape, bounds)}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats):
        for name, run in runs.items():
            found[name].append(_seconds(run, output, blocks[number % len(blocks)]))
    return {name: min(seconds) for name, seconds in found.items()}


def _stackable(shape: Shape, bounds: Bounds) -> bool:
    """Say whether one product over all units can be worth a measurement."""
    return shape.neighbours and shape.count * bounds.max_rank <= 4 * shape.rank


def _seconds(run: Run, output: torch.Tensor, block: Slots) -> float:
    begin = time.perf_counter()
    run(output, block)
    return time.perf_counter() - begin


def _blocks(shape: Shape, bounds: Bounds) -> list[Slots]:
    """Return weights of one or more blocks; scattered slots lie every second place."""
    places = shape.count if shape.neighbours else 2 * shape.count
    size = 2 * shape.count * shape.rank * bounds.width * bounds.dtype.itemsize
    blocks = []
    for _ in range(max(1, min(4, MOST_WEIGHTS // size))):
        block = Slots(places, bounds.max_rank, bounds.width, bounds.dtype, torch.device("cpu"))
        for weights in (block.down, block.up):
            weights[:: places // shape.count, : shape.rank].fill_(0.01)
        blocks.append(block)
    return blocks


def _group(shape: Shape) -> Group:
    stride = 1 if shape.neighbours else 2
    table = SlotTable(stride * shape.count, shape.rank, torch.device("cpu"))
    for slot in range(0, len(table), stride):
        table.take(slot, shape.rank, "relu")
    # Rows of a real batch are not in order of slots: they are gathered and brought back.
    slot_of_row = np.tile(np.arange(0, len(table), stride)[::-1], shape.each)
    (group,) = group_rows(slot_of_row, table, torch.device("cpu"))
    return group
