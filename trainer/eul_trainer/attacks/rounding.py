"""Rounding weights to few bits: unlearning that hides in small differences of weights comes undone by it.

A published attack brings back up to 83 % of what was unlearned in full weights by storing them in 4 bits (arXiv
2410.16454): forgotten and unforgotten weights round to the same numbers. An unlearning layer is no small difference of
the base's weights, but its own may be rounded, and so may the base below it, as a quantised server does.

The grid is symmetric round-to-nearest, one scale for each output, which is not that of GGUF's blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from eul_trainer.model.load import Network

BITS = (8, 4)
PARTS: Mapping[str, tuple[bool, bool]] = {"base": (True, False), "layer": (False, True), "both": (True, True)}
"""What is rounded: the base model's linear maps, the bundle's, or both; its names, and whether each is."""


def round_weights(weight: torch.Tensor, bits: int, dim: int = 1) -> torch.Tensor:
    """Return the nearest values on a symmetric grid.

    Args:
        weight: A linear map, two dimensions.
        bits: Bits of a value, 2 to 16.
        dim: The dimension of the inputs, over which one scale is taken.

    Returns:
        Values of the same shape and dtype, at most 2^bits - 1 different ones for each output.
    """
    steps = 2 ** (bits - 1) - 1
    scale: torch.Tensor = (
        weight.float().abs().amax(dim, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / steps
    )
    rounded: torch.Tensor = (weight.float() / scale).round() * scale
    return rounded.to(weight.dtype)


@torch.no_grad()
def round_network(network: Network, bits: int, part: str) -> int:
    """Round a model's linear maps in place; embeddings and output head stay.

    Args:
        network: The model, with bundles on it or not.
        bits: Bits of a value.
        part: One of PARTS.

    Returns:
        How many maps were rounded.
    """
    base, layer = PARTS[part]
    count = 0
    for path, weight, dim in _maps(network):
        of_layer = ".eul_down." in path or ".eul_up." in path
        if layer if of_layer else base:
            weight.copy_(round_weights(weight, bits, dim))
            count += 1
    return count


def _maps(network: Network) -> Iterator[tuple[str, torch.Tensor, int]]:
    head = network.get_output_embeddings()
    for path, module in network.named_modules():
        if module is head:
            continue
        if isinstance(module, nn.Linear):
            yield path, module.weight, 1
        elif type(module).__name__ == "Conv1D":  # GPT-2's maps are stored the other way round
            yield path, module.weight, 0
