"""The weights of one block's unlearning layers, one slot per bundle, and the arithmetic over a mixed batch.

Two ways to the same result. `apply` walks over the slots that the batch uses: a row costs only its own bundle's
rank, and no other bundle's numbers are touched on its behalf. `apply_fixed_shape` runs every slot over every row
behind a mask, so that nothing depends on the batch and a CUDA graph can record it.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from eul_serve.engine.step import Step
from eul_serve.errors import BundleMismatchError, CapacityError
from eul_serve.format.weights import ACTIVATION_FUNCTIONS, LayerWeights

_CODES = {name: code for code, name in enumerate(ACTIVATION_FUNCTIONS)}


class Slots:
    """Weights of `slots` bundles for one feed-forward module."""

    def __init__(self, slots: int, max_rank: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        """Reserve the memory.

        Args:
            slots: Bundles that can be in one batch.
            max_rank: Highest rank of a bundle.
            width: Width d of the module's output.
            dtype: dtype of the weights.
            device: Where the batch runs.
        """
        self.max_rank, self.width = max_rank, width
        self.down = torch.zeros(slots, max_rank, width, dtype=dtype, device=device)
        self.bias = torch.zeros(slots, max_rank, dtype=dtype, device=device)
        # U is kept transposed, so that a slot's own rank is a contiguous piece of it as well.
        self.up = torch.zeros(slots, max_rank, width, dtype=dtype, device=device)
        self.codes = torch.zeros(slots, dtype=torch.int64, device=device)
        self.ranks = [0] * slots
        self.activations = ["relu"] * slots

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
        if rank > self.max_rank:
            raise CapacityError(
                f"rank: expected at most {self.max_rank}, found {rank}; raise the engine's maximum rank"
            )
        if width != self.width:
            raise BundleMismatchError(f"width: expected {self.width}, found {width}")
        self.clear(slot)
        self.down[slot, :rank].copy_(layer.down)
        self.up[slot, :rank].copy_(layer.up.T)
        if layer.bias is not None:
            self.bias[slot, :rank].copy_(layer.bias)
        self.ranks[slot], self.activations[slot] = rank, layer.activation
        self.codes[slot] = _CODES[layer.activation]

    def clear(self, slot: int) -> None:
        """Empty a slot; its rows get the base model's output."""
        rank = self.ranks[slot]
        for weights in (self.down, self.up, self.bias):
            weights[slot, :rank].zero_()
        self.ranks[slot] = 0

    def apply(self, output: torch.Tensor, step: Step) -> None:
        """Add the layers to a batch in place, slot by slot.

        Args:
            output: Output y of the module, (rows, d); rows beyond the step's are left as they are.
            step: The rows of every slot.
        """
        for slot, rows in step.groups:
            if not self.ranks[slot]:
                continue  # the bundle has no layer for this block
            if isinstance(rows, slice):
                self._add(output[rows], slot)
            else:
                part = output.index_select(0, rows)
                self._add(part, slot)
                output.index_copy_(0, rows, part)

    def _add(self, part: torch.Tensor, slot: int) -> None:
        rank = self.ranks[slot]
        hidden = torch.addmm(self.bias[slot, :rank], part, self.down[slot, :rank].T)
        part.addmm_(ACTIVATION_FUNCTIONS[self.activations[slot]](hidden), self.up[slot, :rank])

    def apply_fixed_shape(self, output: torch.Tensor, mask: torch.Tensor) -> None:
        """Add the layers to a batch in place, all slots at once.

        Args:
            output: Output y of the module, (rows, d).
            mask: Which row belongs to which slot, (at least rows, slots).
        """
        rows, slots = len(output), len(self.ranks)
        hidden = functional.linear(output, self.down.view(-1, self.width), self.bias.view(-1))
        hidden = hidden.view(rows, slots, self.max_rank)
        codes = self.codes.view(1, slots, 1)
        chosen = functional.relu(hidden)
        for name, code in _CODES.items():
            if name != "relu":
                chosen = torch.where(codes == code, ACTIVATION_FUNCTIONS[name](hidden), chosen)
        # Chosen, not multiplied: an overflow in another bundle's units must not reach this row as 0 * inf.
        chosen = torch.where(
            mask[:rows].unsqueeze(2), chosen, torch.zeros((), dtype=output.dtype, device=output.device)
        )
        output.addmm_(chosen.view(rows, -1), self.up.view(-1, self.width))
