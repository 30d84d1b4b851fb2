"""Layers side by side, an exact sum of their functions, and the up-projection solved again against retained data.

    U = argmin |U phi - U0 phi|^2 over forgotten answers + rho s |U phi|^2 over retained rows
      = U0 (F + e I) (F + rho s R + e I)^-1,    e = ridge * tr(F) / n,    s = tr(F) / tr(R)

phi are all members' hidden units. F may use only what each layer stores, so it is block-diagonal: each member's own
Gram. R is measured on the base model when layers are fused, for retained data is at hand then; s brings it to the size
of F, since layers that were trained to be silent on retained data hardly fire there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.members import Member
from eul_trainer.fusion.regression import moments_of

RHO = 0.1
"""Default weight of retained data."""
RIDGE = 1e-4
"""Default ridge, relative to the mean of F's diagonal."""


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


def resolve_up(
    up: torch.Tensor, forget: torch.Tensor, retain: torch.Tensor, rho: float = RHO, ridge: float = RIDGE
) -> torch.Tensor:
    """Return the up-projection that keeps the forgetting and is quiet on retained data.

    Args:
        up: U0, (d, n).
        forget: F, (n, n).
        retain: R, (n, n).
        rho: Weight of retained data, 0 or more; 0 returns U0 up to rounding.
        ridge: Relative ridge, above 0.

    Returns:
        U, (d, n), in the dtype of U0; solved in float64.
    """
    own, kept = forget.double(), retain.double()
    level = max(ridge * float(own.trace()) / len(own), 1e-12)
    scale = float(own.trace()) / max(float(kept.trace()), 1e-30)
    right = own + level * torch.eye(len(own), dtype=torch.float64)
    solved: torch.Tensor = torch.linalg.solve(right + rho * scale * kept, right @ up.double().T)
    fused: torch.Tensor = solved.T.to(up.dtype).contiguous()
    return fused


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
