"""`y + U act(D y + b)` by vLLM's own LoRA kernels, with bias and activation between them: what ours are measured by.

vLLM's kernels multiply a slot's highest rank, not the bundle's own, and take bfloat16 and float16 alone. The first adds
partial sums with atomics, so bits may differ from run to run, unless `VLLM_BATCH_INVARIANT` is set; the second rounds
U's products to the weights' dtype before it adds them to y.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch

from eul_serve.errors import InputError
from eul_serve.format.weights import ACTIVATION_FUNCTIONS


class LoraBatch:
    """The rows of the running batch as vLLM's kernels read them, at constant addresses."""

    def __init__(self, slots: int, max_tokens: int, device: torch.device) -> None:
        """Reserve the memory; no row belongs to a slot yet.

        Args:
            slots: Bundles that can be in one batch.
            max_tokens: Most rows of a batch.
            device: Where the kernels run.
        """
        from vllm.lora.ops.triton_ops import LoRAKernelMeta, lora_expand, lora_shrink

        self.shrink, self.expand = lora_shrink, lora_expand
        self.meta: Final[Any] = LoRAKernelMeta.make(slots, max_tokens, device)
        self.fill(np.zeros(0, dtype=np.int64))

    def fill(self, slot_of_row: np.ndarray) -> None:
        """Take up a batch.

        Args:
            slot_of_row: The slot of every row, int64, (rows,); -1 for a row without a bundle.
        """
        # On the device, where vLLM sorts it; its tensors are int32.
        mapping = torch.from_numpy(slot_of_row.astype(np.int32)).to(self.meta.token_lora_mapping.device)
        self.meta.prepare_tensors(mapping)


def make_scratch(max_tokens: int, max_rank: int, device: torch.device) -> torch.Tensor:
    """Reserve the memory for hidden units: float32, (1, max_tokens, max_rank)."""
    return torch.empty(1, max_tokens, max_rank, dtype=torch.float32, device=device)


def activate_hidden(
    hidden: torch.Tensor, bias: torch.Tensor, ranks: torch.Tensor, codes: torch.Tensor, slot_of_row: torch.Tensor
) -> None:
    """Turn D y into act(D y + b) in place, in operations whose shapes do not depend on the batch.

    Args:
        hidden: D y of every row, (rows, max_rank), float32; what is beyond the rank of a row's bundle becomes zero.
        bias: Biases b, (slots, max_rank).
        ranks: Each slot's own rank, (slots,).
        codes: Each slot's activation, its place in `ACTIVATION_FUNCTIONS`, (slots,).
        slot_of_row: The slot of every row, (rows,); any number for a row without a bundle, whose units nobody reads.
    """
    slot = slot_of_row.clamp(0, len(ranks) - 1).long()
    own = torch.arange(hidden.shape[1], device=hidden.device) < ranks[slot].unsqueeze(1)
    hidden += torch.where(own, bias[slot].float(), 0)
    code = codes[slot].unsqueeze(1)
    chosen = torch.zeros((), device=hidden.device)
    for place, function in enumerate(ACTIVATION_FUNCTIONS.values()):
        chosen = torch.where(own & (code == place), function(hidden), chosen)
    hidden.copy_(chosen)


def add_layers(
    output: torch.Tensor,
    down: torch.Tensor,
    bias: torch.Tensor,
    up: torch.Tensor,
    ranks: torch.Tensor,
    codes: torch.Tensor,
    batch: LoraBatch,
    scratch: torch.Tensor,
) -> None:
    """Add the layers to a batch in place.

    Args:
        output: Output y of the module, (rows, d), contiguous; rows without a bundle keep every bit.
        down: D of every slot, (slots, max_rank, d); zero beyond a slot's own rank.
        bias: Biases b, (slots, max_rank).
        up: U of every slot, (slots, d, max_rank), contiguous: not transposed, unlike what our own kernels take.
            Zero beyond a slot's own rank.
        ranks: Each slot's own rank, (slots,), an integer dtype.
        codes: Each slot's activation, its place in `ACTIVATION_FUNCTIONS`, (slots,), an integer dtype.
        batch: The rows of every slot.
        scratch: What `make_scratch` returned for this rank.

    Raises:
        InputError: The dtype is not one that vLLM's kernels take.
    """
    if output.dtype not in (torch.bfloat16, torch.float16):
        raise InputError(f"dtype: expected torch.bfloat16 or torch.float16, found {output.dtype}")
    rows = len(output)
    arguments = batch.meta.meta_args(rows, specialize_active_lora=False)
    hidden = scratch[:, :rows]
    batch.shrink(output, [down], hidden, *arguments, 1.0)
    activate_hidden(hidden[0], bias, ranks, codes, batch.meta.token_lora_mapping[:rows])
    # vLLM's second kernel rounds the hidden units to the dtype of U before it multiplies them.
    batch.expand(hidden, [up], output, *arguments, offset_start=0, add_inputs=True)
