"""The paper's fusion: per linear map the least-squares mean of the layers on their own forget data.

    W = (sum_i G_i + N l I)^-1 sum_i (G_i + l I) W_i,    G_i = X_i^T X_i,    l = ridge * mean_i tr(G_i) / d

X_i are the map's inputs on request i's forgotten answers; the bias is the weight of a constant input. Each map is
linear, the activation between them is not: so this is a regression per map, not of the layer as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_serve.errors import InputError
from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.members import Member
from eul_trainer.statistics import MIN_TOKENS, LayerStatistics

RIDGE = 1e-4
"""Default ridge, relative to the mean of the Grams' diagonals."""


def regress(grams: Sequence[torch.Tensor], maps: Sequence[torch.Tensor], ridge: float = RIDGE) -> torch.Tensor:
    """Return the closed form for one linear map.

    Args:
        grams: Per layer the Gram of the map's inputs, (in, in).
        maps: Per layer the map's weight, (out, in).
        ridge: Relative ridge, above 0.

    Returns:
        The fused weight, (out, in), in the dtype of the first map; solved in float64.
    """
    wide = [gram.double() for gram in grams]
    size = len(wide[0])
    # Where no unit ever fires the Gram is zero, and the least ridge makes the result the plain mean.
    level = max(ridge * sum(float(gram.trace()) for gram in wide) / len(wide) / size, 1e-12)
    eye = level * torch.eye(size, dtype=torch.float64)
    right = sum(
        ((gram + eye) @ weight.double().T for gram, weight in zip(wide, maps, strict=True)),
        torch.zeros(size, len(maps[0]), dtype=torch.float64),
    )
    left = sum((gram + eye for gram in wide), torch.zeros_like(eye))
    fused: torch.Tensor = torch.linalg.solve(left, right).T.to(maps[0].dtype).contiguous()
    return fused


def regression(members: Sequence[Member], ridge: float = RIDGE) -> dict[str, LayerWeights]:
    """Fuse layers by the paper's closed form, at the same rank.

    Args:
        members: The layers, at least two, with their moments.
        ridge: Relative ridge.

    Returns:
        The fused layers by module path.

    Raises:
        InputError: The ranks differ, or a layer has no stored moments.
    """
    if len(ranks := {member.rank for member in members}) > 1:
        raise InputError(
            f"regression: expected layers of one rank, found {', '.join(map(str, sorted(ranks)))}; use --method concat"
        )
    statistics = [moments_of(member) for member in members]
    return {module: _fuse(module, members, statistics, ridge) for module in members[0].layers}


def _fuse(module: str, members: Sequence[Member], statistics: Sequence[LayerStatistics], ridge: float) -> LayerWeights:
    layers = [member.layers[module] for member in members]
    inputs = [found.tokens * found.moments[module].inputs for found in statistics]
    units = [found.tokens * found.moments[module].units for found in statistics]
    up = regress(units, [layer.up for layer in layers], ridge)
    if layers[0].bias is None:
        down = regress([gram[:-1, :-1] for gram in inputs], [layer.down for layer in layers], ridge)
        return LayerWeights(down, up, None, layers[0].activation)
    maps = [torch.cat([layer.down, layer.bias[:, None]], dim=1) for layer in layers if layer.bias is not None]
    down = regress(inputs, maps, ridge)
    return LayerWeights(down[:, :-1].contiguous(), up, down[:, -1].contiguous(), layers[0].activation)


def moments_of(member: Member) -> LayerStatistics:
    """Return a member's stored moments.

    Args:
        member: The member.

    Returns:
        Its moments, never empty.

    Raises:
        InputError: There are none; says why.
    """
    found = member.statistics
    if found is None:
        raise InputError(
            f"request {member.request.id!r}: its layer came without fusion.safetensors, which this fusion needs; "
            "use the directory that eul-train fit wrote, or --method concat without --retain"
        )
    if not found.moments:
        raise InputError(
            f"request {member.request.id!r}: its forget set has {found.tokens} answer tokens; below {MIN_TOKENS} no "
            "statistics are stored, as they would show the rows; use --method concat without --retain"
        )
    return found
