"""Layers side by side of which each request's is behind a gate, as a function of a block's output."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from eul_serve.format.weights import ACTIVATION_FUNCTIONS, LayerWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedLayer:
    """The layers of one block, with a gate for each request: `y + U (g(y) * act(D y + b))`."""

    down: torch.Tensor  # (R, d)
    up: torch.Tensor  # (d, R)
    bias: torch.Tensor | None  # (R,)
    activation: str
    weight: torch.Tensor  # (N, d)
    offset: torch.Tensor  # (N,)
    ranks: tuple[int, ...]
    """Units of each request, in order."""

    def gates(self, y: torch.Tensor) -> torch.Tensor:
        """Return how far each gate is open, (..., N), 0 to 1, for y (..., d)."""
        return torch.nn.functional.linear(y, self.weight, self.offset).clamp(0, 1)

    def apply(self, output: torch.Tensor) -> torch.Tensor:
        """Return the block's output with the gated layers behind it, (..., d), for an output y (..., d)."""
        y = output.to(torch.promote_types(output.dtype, torch.float32))
        return (y + torch.nn.functional.linear(units_of(self, y), self.up)).to(output.dtype)


Stack = LayerWeights | GatedLayer
"""Layers side by side of one block."""


def units_of(layer: Stack, y: torch.Tensor) -> torch.Tensor:
    """Return what U is multiplied with, (..., R), for y (..., d): `act(D y + b)`, times the gates if there are any."""
    linear = torch.nn.functional.linear(y, layer.down, layer.bias)
    units: torch.Tensor = ACTIVATION_FUNCTIONS[layer.activation](linear)
    if isinstance(layer, GatedLayer):
        counts = torch.tensor(layer.ranks, device=y.device)
        units = units * layer.gates(y).repeat_interleave(counts, dim=-1)
    return units


def placed(layer: Stack, device: torch.device) -> Stack:
    """Return a layer on a device."""
    down, up = layer.down.to(device), layer.up.to(device)
    bias = None if layer.bias is None else layer.bias.to(device)
    if isinstance(layer, LayerWeights):
        return LayerWeights(down, up, bias, layer.activation)
    return GatedLayer(
        down=down,
        up=up,
        bias=bias,
        activation=layer.activation,
        weight=layer.weight.to(device),
        offset=layer.offset.to(device),
        ranks=layer.ranks,
    )
