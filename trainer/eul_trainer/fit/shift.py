"""Hidden units moved along a discriminant: silent on retained rows, and on average as loud on forgotten ones.

    D_j <- D_j + k_j w,    b_j <- b_j + k_j (c - 1/2),    k_j = t sqrt(F_jj)

w and c are the discriminant of gating.py, F the mean second moment of the units on forgotten answers. At the mean of
those answers w . y + c - 1/2 is 0, so a unit's input stays; at the mean of retained rows it is -1, so the unit is
pushed down by t times its own size, and an activation that is flat below zero turns it off.
"""

from __future__ import annotations

import torch

from eul_serve.format.weights import LayerWeights


def shifted(layer: LayerWeights, gate: torch.Tensor, units: torch.Tensor, amount: float) -> LayerWeights:
    """Return a layer with its units moved.

    Args:
        layer: The layer, with a bias.
        gate: w and c, (d + 1,).
        units: F, (r, r).
        amount: t, 0 or more; 0 changes nothing.

    Returns:
        The layer with another D and b.
    """
    size = amount * units.double().diagonal().clamp_min(0).sqrt()
    wide = gate.double()
    down = layer.down.double() + size[:, None] * wide[:-1]
    bias = size * (wide[-1] - 0.5) + (0 if layer.bias is None else layer.bias.double())
    return LayerWeights(down.to(layer.down.dtype), layer.up, bias.to(layer.down.dtype), layer.activation)
