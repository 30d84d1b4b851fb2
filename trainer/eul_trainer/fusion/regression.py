"""The paper's fusion: per linear map the least-squares mean of the layers on their own forget data.

    W = (sum_i G_i + N l I + w s R)^-1 sum_i (G_i + l I) W_i,  l = ridge mean_i tr(G_i) / d,  s = mean_i tr(G_i) / tr(R)

G_i = X_i^T X_i, X_i the map's inputs on request i's forgotten answers; the bias is the weight of a constant input. Each
map is linear, the activation between them is not: so this is a regression per map, not of the layer as a whole.

Two terms are not the paper's, and are off by default. `shrink` multiplies the Grams' off-diagonals (RegMean, Jin et
al., arXiv 2212.09849). `retain_weight`, w, adds the Gram R of retained rows with the zero layer as its target.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_serve.errors import BundleMismatchError, InputError
from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.job import Fused, Job, inputs_of, moments_of, retained_inputs
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.fusion.solve import level_of, solve
from eul_trainer.fusion.store import RetainMoments


def fuse(job: Job) -> Fused:
    """Fuse layers by the closed form, at the same rank.

    Args:
        job: The fusion.

    Returns:
        The layers.

    Raises:
        InputError: The ranks differ, or a layer has no stored moments of its inputs.
        BundleMismatchError: The layers did not start from one D.
    """
    if len(ranks := {member.rank for member in job.members}) > 1:
        raise InputError(
            f"--method regression: expected layers of one rank, found {', '.join(map(str, sorted(ranks)))}; "
            "use --method concat"
        )
    if len(seeds := {member.init_seed for member in job.members if member.init_seed is not None}) > 1:
        raise BundleMismatchError(
            f"--method regression: expected layers that started from one D, found the seeds "
            f"{', '.join(map(str, sorted(seeds)))}; train them with one --init-seed, or use --method concat"
        )
    return Fused(layers={module: _fuse(module, job) for module in job.modules})


def _fuse(module: str, job: Job) -> LayerWeights:
    layers = [member.layers[module] for member in job.members]
    inputs = [moments_of(member).tokens * inputs_of(member, module) for member in job.members]
    units = [moments_of(member).tokens * moments_of(member).moments[module].units for member in job.members]
    quiet = _own_units(job.moments[module], layers) if job.moments else None
    around = retained_inputs(job, module) if job.moments else None
    up = regress(units, [layer.up for layer in layers], job.settings, quiet)
    if layers[0].bias is None:
        inputs = [gram[:-1, :-1] for gram in inputs]
        around = None if around is None else around[:-1, :-1]
        down = regress(inputs, [layer.down for layer in layers], job.settings, around)
        return LayerWeights(down, up, None, layers[0].activation)
    maps = [torch.cat([layer.down, layer.bias[:, None]], dim=1) for layer in layers if layer.bias is not None]
    down = regress(inputs, maps, job.settings, around)
    return LayerWeights(down[:, :-1].contiguous(), up, down[:, -1].contiguous(), layers[0].activation)


def _own_units(retain: RetainMoments, layers: Sequence[LayerWeights]) -> torch.Tensor:
    """Return the mean of the members' own unit Grams on retained rows: the fused units are not known yet."""
    rank = len(layers[0].down)
    blocks = [retain.units[first : first + rank, first : first + rank] for first in range(0, rank * len(layers), rank)]
    return torch.stack(blocks).mean(0)


def regress(
    grams: Sequence[torch.Tensor],
    maps: Sequence[torch.Tensor],
    settings: FuseSettings,
    retain: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the closed form for one linear map.

    Args:
        grams: Per layer the Gram of the map's inputs, (in, in).
        maps: Per layer the map's weight, (out, in).
        settings: Its ridge, shrink and retain_weight are read.
        retain: R, (in, in); None leaves its term out.

    Returns:
        The fused weight, (out, in), in the dtype of the first map; solved in float64.
    """
    wide = [_shrunken(gram.double(), settings.shrink) for gram in grams]
    mean = torch.stack(wide).mean(0)
    eye = level_of(mean, settings.ridge) * torch.eye(len(mean), dtype=torch.float64)
    left = len(wide) * (mean + eye)
    if retain is not None:
        share = settings.retain_weight * float(mean.trace()) / max(float(retain.trace()), 1e-30)
        left = left + share * _shrunken(retain.double(), settings.shrink)
    right = torch.stack([(gram + eye) @ weight.double().T for gram, weight in zip(wide, maps, strict=True)]).sum(0)
    return solve(left, right, settings.ridge).T.to(maps[0].dtype).contiguous()


def _shrunken(gram: torch.Tensor, factor: float) -> torch.Tensor:
    return factor * gram + (1 - factor) * torch.diag(gram.diagonal())
