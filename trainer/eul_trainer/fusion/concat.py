"""Layers side by side, an exact sum of their functions, and the up-projection solved again against retained data.

F of solve.py may use only what each layer stores, so it is block-diagonal: each member's own Gram. R is measured on the
base model when layers are fused, for retained data is at hand then.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.members import Member
from eul_trainer.fusion.regression import moments_of
from eul_trainer.fusion.solve import RHO, RIDGE, resolve_up


def concat(members: Sequence[Member]) -> dict[str, LayerWeights]:
    """Put layers side by side: rank N r, exactly the sum of their functions.

    Args:
        members: The layers.

    Returns:
        The layers by module path.
    """
    return {module: _join([member.layers[module] for member in members]) for module in members[0].layers}


def _join(layers: Sequence[LayerWeights]) -> LayerWeights:
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return LayerWeights(
        torch.cat([layer.down for layer in layers]),
        torch.cat([layer.up for layer in layers], dim=1),
        torch.cat(biases) if biases else None,
        layers[0].activation,
    )


def block_diagonal_of(grams: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return one square matrix with the given ones along its diagonal."""
    joined: torch.Tensor = torch.block_diag(*grams)  # type: ignore[no-untyped-call]  # torch has no type for it
    return joined


def corrected(
    members: Sequence[Member], retain: dict[str, torch.Tensor], rho: float = RHO, ridge: float = RIDGE
) -> dict[str, LayerWeights]:
    """Put layers side by side and solve every up-projection again.

    Args:
        members: The layers, with their moments.
        retain: R by module path, its units in the order of the members.
        rho: Weight of retained data.
        ridge: Relative ridge.

    Returns:
        The layers by module path.
    """
    statistics = [moments_of(member) for member in members]
    fused = {}
    for module, layer in concat(members).items():
        forget = block_diagonal_of([found.moments[module].units for found in statistics])
        up = resolve_up(layer.up, forget, retain[module], rho, ridge)
        fused[module] = LayerWeights(layer.down, up, layer.bias, layer.activation)
    return fused
