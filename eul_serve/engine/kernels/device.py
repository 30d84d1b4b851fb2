"""The kernels on a GPU: measured when an engine starts, and chosen by the number of rows, which a graph fixes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

import numpy as np
import torch

from eul_serve.engine.kernels import triton_fused, triton_split
from eul_serve.engine.kernels.table import nearest
from eul_serve.engine.kernels.tiles import Tiles
from eul_serve.engine.slot_table import SlotTable
from eul_serve.engine.slots import Slots

TILE_ROWS = {"split": 16, "split, wide": 64, "fused": 16, "fused, wide": 64}
"""Most rows of a tile, by name of the way; wide tiles read weights less often and suit long prompts."""
USUAL = "split"
"""What is used where nothing was measured: right for decoding, and never far off."""
ROWS = (1, 4, 16, 64, 256, 1024, 4096)
"""Numbers of rows to measure; one between takes the nearest by factor."""
_REPEATS = 5


class DeviceKernels:
    """Every way to compute a batch on a GPU, with the memory that they need at constant addresses."""

    def __init__(self, table: SlotTable, max_tokens: int, device: torch.device) -> None:
        """Reserve the memory.

        Args:
            table: Rank and activation by slot.
            max_tokens: Most rows of a batch.
            device: Where the batch runs.
        """
        self._table, self._max_tokens, self._device = table, max_tokens, device
        self._tiles = {rows: Tiles(len(table), max_tokens, rows, device) for rows in sorted(set(TILE_ROWS.values()))}
        self._scratch = triton_split.make_scratch(max_tokens, table.max_rank, device)
        self.fastest: dict[int, str] = {}
        """Name of the fastest way by number of rows, ascending."""

    def alike(self, table: SlotTable, max_tokens: int) -> DeviceKernels:
        """Return kernels with memory of their own that choose as these do."""
        made = DeviceKernels(table, max_tokens, self._device)
        made.fastest = self.fastest
        return made

    def ways(self) -> tuple[str, ...]:
        """Return the ways that slots of this rank can be run."""
        fits = triton_fused.fits(self._table.max_rank)
        return tuple(name for name in TILE_ROWS if fits or not name.startswith("fused"))

    def fill(self, slot_of_row: np.ndarray) -> None:
        """Take up a batch, once per step.

        Args:
            slot_of_row: The slot of every row, int64, (rows,); -1 for a row without a bundle.
        """
        for tiles in self._tiles.values():
            tiles.fill(slot_of_row)

    def run(self, output: torch.Tensor, weights: Slots) -> None:
        """Add the layers to a block's output in place, in the way that is the fastest for so many rows.

        Args:
            output: Output y of the block, (rows, d).
            weights: The block's slots.
        """
        self.run_as(self.fastest.get(nearest(list(self.fastest), len(output)), USUAL), output, weights)

    def run_as(self, way: str, output: torch.Tensor, weights: Slots) -> None:
        """Add the layers in one way.

        Args:
            way: One of `ways`.
            output: Output y of the block, (rows, d).
            weights: The block's slots.
        """
        kept = (weights.down, weights.bias, weights.up, self._table.device_ranks, self._table.device_codes)
        tiles = self._tiles[TILE_ROWS[way]]
        if way.startswith("fused"):
            triton_fused.add_layers(output, *kept, tiles)
        else:
            triton_split.add_layers(output, *kept, tiles, self._scratch)

    @torch.inference_mode()
    def measure(self, weights: Slots, seconds: Callable[[Callable[[], None]], float] | None = None) -> dict[int, str]:
        """Return the fastest way by number of rows, with all slots in use at the highest rank.

        Args:
            weights: Slots of one block; nothing is written to them.
            seconds: Measures one call; None takes the device's own clock.

        Returns:
            Name of the way by number of rows; the caller makes it the rule by `fastest`.
        """
        clock = seconds or _device_seconds
        before = list(zip(self._table.ranks, self._table.activations, strict=True))
        for slot in range(len(self._table)):
            self._table.take(slot, self._table.max_rank, "relu")
        found = {rows: self._fastest(rows, weights, clock) for rows in ROWS if rows <= self._max_tokens}
        for slot, (rank, activation) in enumerate(before):
            self._table.take(slot, rank, activation)
        self.fill(np.zeros(0, dtype=np.int64))
        return found

    def _fastest(self, rows: int, weights: Slots, seconds: Callable[[Callable[[], None]], float]) -> str:
        output = torch.zeros(rows, weights.width, dtype=weights.down.dtype, device=weights.down.device)
        self.fill(np.arange(rows, dtype=np.int64) % len(self._table))
        times: Mapping[str, float] = {
            way: seconds(lambda way=way: self.run_as(way, output, weights))  # type: ignore[misc]
            for way in self.ways()
        }
        return min(times, key=times.__getitem__)


def _device_seconds(work: Callable[[], None]) -> float:
    """Return the median seconds of a call by the device's clock, after one that compiles the kernels."""
    work()
    found = []
    for _ in range(_REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        work()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end) / 1000)
    return float(statistics.median(found))
