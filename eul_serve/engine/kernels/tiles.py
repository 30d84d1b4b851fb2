"""The rows of the running batch, sorted by slot and cut into tiles: what the kernels read, at constant addresses."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from eul_serve.errors import EngineError

_RING = 2
"""Staging buffers. Two let the host prepare a step while the copy of the one before still waits for the device."""


class Tiles:
    """Pieces of a batch of at most `block_rows` rows, each of one slot; one program of a kernel works on one of them.

    A kernel's grid depends on the number of rows alone, so a recorded CUDA graph runs the programs of `max_tiles`
    tiles whatever the batch holds; those without work read a slot of -1 and end.
    """

    def __init__(self, slots: int, max_tokens: int, block_rows: int, device: torch.device) -> None:
        """Reserve the memory; no row belongs to a slot yet.

        Args:
            slots: Bundles that can be in one batch.
            max_tokens: Most rows of a batch.
            block_rows: Most rows of a tile; a power of two from 16. Sixteen suits decoding, 32 to 64 long prompts.
            device: Where the kernels run.

        Raises:
            EngineError: The number of rows of a tile is not a power of two from 16.
        """
        if block_rows < 16 or block_rows & (block_rows - 1):
            raise EngineError(f"block_rows: expected a power of two from 16, found {block_rows}")
        self.slots: Final = slots
        self.max_tokens: Final = max_tokens
        self.block_rows: Final = block_rows
        self.capacity: Final = min(max_tokens, -(-max_tokens // block_rows) + slots)
        # One buffer, so that a step costs one copy; the tiles come first, so that it ends with the last row in use.
        self._buffer: Final = torch.zeros(3 * self.capacity + max_tokens, dtype=torch.int32, device=device)
        parts = self._buffer[: 3 * self.capacity].view(3, self.capacity)
        self.tile_slot: Final = parts[0]
        """Slot of every tile, (capacity,); -1 where there is no work."""
        self.tile_start: Final = parts[1]
        """Where a tile's rows begin in `order`, (capacity,)."""
        self.tile_count: Final = parts[2]
        """Rows of every tile, (capacity,)."""
        self.order: Final = self._buffer[3 * self.capacity :]
        """Rows of the batch that belong to a slot, sorted by slot, (max_tokens,)."""
        self.tile_slot.fill_(-1)
        self._staging: Final = _Staging(len(self._buffer)) if device.type == "cuda" else None

    def max_tiles(self, rows: int) -> int:
        """Return the most tiles that a batch of `rows` rows can have: the tiles that a kernel's grid covers."""
        return min(rows, -(-rows // self.block_rows) + self.slots, self.capacity)

    def fill(self, slot_of_row: np.ndarray) -> None:
        """Take up a batch; what the last one left is cleared.

        Call it on the stream that the kernels run on, and not while a graph is recorded: the copy takes its turn
        after the kernels of the last step, and the host waits for none of them.

        Args:
            slot_of_row: The slot of every row, int64, (rows,); -1 for a row without a bundle.

        Raises:
            EngineError: More rows than the maximum, or a slot that does not exist.
        """
        values = self._cut(slot_of_row)
        if self._staging is None:
            self._buffer[: len(values)].copy_(torch.from_numpy(values))
        else:
            self._staging.send(values, self._buffer)

    def _cut(self, slot_of_row: np.ndarray) -> np.ndarray:
        """Return the content of the buffer up to the last row in use."""
        if len(slot_of_row) > self.max_tokens:
            raise EngineError(f"rows: expected at most {self.max_tokens}, found {len(slot_of_row)}")
        rows = np.flatnonzero(slot_of_row >= 0)
        slots = slot_of_row[rows]
        if len(slots) and (highest := int(slots.max())) >= self.slots:
            raise EngineError(f"slot: expected at most {self.slots - 1}, found {highest}")
        counts = np.bincount(slots, minlength=self.slots)
        tiles = -(-counts // self.block_rows)
        used = int(tiles.sum())
        slot_of_tile = np.repeat(np.arange(self.slots), tiles)
        # Rows of its slot that lie in the tiles before it.
        before = (np.arange(used) - (np.cumsum(tiles) - tiles)[slot_of_tile]) * self.block_rows
        values = np.zeros(3 * self.capacity + len(rows), dtype=np.int32)
        tile_slot, tile_start, tile_count = values[: 3 * self.capacity].reshape(3, self.capacity)
        tile_slot[:used], tile_slot[used:] = slot_of_tile, -1
        tile_start[:used] = (np.cumsum(counts) - counts)[slot_of_tile] + before
        tile_count[:used] = np.minimum(counts[slot_of_tile] - before, self.block_rows)
        # Stable, so that neighbours in the batch stay neighbours and are read together.
        values[3 * self.capacity :] = rows[np.argsort(slots, kind="stable")]
        return values


class _Staging:
    """Page-locked memory for copies that the host does not wait for.

    The device reads a buffer some time after `send` has returned. Until then it must not be written again, so each
    has an event behind its copy, and the host waits for that of the buffer whose turn it is: with two of them, only
    if it is two steps ahead of the device.
    """

    def __init__(self, size: int) -> None:
        self._buffers = [torch.zeros(size, dtype=torch.int32, pin_memory=True) for _ in range(_RING)]
        self._copied = [torch.cuda.Event() for _ in range(_RING)]  # type: ignore[no-untyped-call]
        self._turn = 0

    def send(self, values: np.ndarray, target: torch.Tensor) -> None:
        """Copy values to the beginning of a tensor on the device."""
        self._turn = (self._turn + 1) % _RING
        buffer, copied = self._buffers[self._turn][: len(values)], self._copied[self._turn]
        copied.synchronize()
        buffer.copy_(torch.from_numpy(values))
        target[: len(values)].copy_(buffer, non_blocking=True)
        copied.record(torch.cuda.current_stream(target.device))
