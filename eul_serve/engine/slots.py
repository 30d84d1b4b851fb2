"""The weights of one block's unlearning layers, one slot per bundle."""

from __future__ import annotations

import mmap

import torch

from eul_serve.engine.slot_table import check_rank
from eul_serve.errors import BundleMismatchError
from eul_serve.format.weights import LayerWeights


class Slots:
    """Weights of `slots` bundles for one feed-forward module.

    Whatever lies beyond a bundle's own rank is zero, so that a kernel may run more units than the bundle has.
    """

    def __init__(self, slots: int, max_rank: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        """Reserve the memory; on a CPU it is taken only as bundles fill it, so that a slot costs its bundle's rank.

        Args:
            slots: Bundles that can be in one batch.
            max_rank: Highest rank of a bundle.
            width: Width d of the module's output.
            dtype: dtype of the weights.
            device: Where the batch runs.
        """
        self.max_rank, self.width = max_rank, width
        self.down = _reserve((slots, max_rank, width), dtype, device)
        """D of every slot, (slots, max_rank, d)."""
        self.bias = _reserve((slots, max_rank), dtype, device)
        """b of every slot, (slots, max_rank)."""
        self.up = _reserve((slots, max_rank, width), dtype, device)
        """U of every slot, transposed: (slots, max_rank, d), so that a bundle's own rank is one piece of memory."""
        self._filled = [0] * slots

    def put(self, slot: int, layer: LayerWeights) -> None:
        """Copy a bundle's layer into a slot.

        Args:
            slot: Number of the slot; what was in it is gone.
            layer: Weights of any rank up to the maximum.

        Raises:
            CapacityError: The rank is higher than the slots allow.
            BundleMismatchError: The width differs from the module's.
        """
        rank, width = layer.down.shape
        check_rank(rank, self.max_rank)
        if width != self.width:
            raise BundleMismatchError(f"width: expected {self.width}, found {width}")
        self.clear(slot)
        self.down[slot, :rank].copy_(layer.down, non_blocking=True)
        self.up[slot, :rank].copy_(layer.up.T, non_blocking=True)
        if layer.bias is not None:
            self.bias[slot, :rank].copy_(layer.bias, non_blocking=True)
        self._filled[slot] = rank

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        for weights in (self.down, self.up, self.bias):
            weights[slot, : self._filled[slot]].zero_()
        self._filled[slot] = 0


def _reserve(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return zeros; on a CPU in pages that the system hands out when they are first written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = torch.Size(shape).numel()
    return torch.frombuffer(mmap.mmap(-1, max(1, size * dtype.itemsize)), dtype=dtype, count=size).view(shape)
