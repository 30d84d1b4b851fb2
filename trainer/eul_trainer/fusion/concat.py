"""Layers side by side, an exact sum of their functions, and the up-projection solved again against retained data.

F of solve.py may use only what each layer stores, so it is block-diagonal: each member's own Gram. R is measured on the
base model when layers are fused, for retained data is at hand then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.heal import heal
from eul_trainer.fusion.job import Fused, Job, forget_grams
from eul_trainer.fusion.limit import least_weight
from eul_trainer.fusion.members import Member
from eul_trainer.fusion.retained import Retained, worst
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.fusion.solve import resolve_up
from eul_trainer.fusion.store import RetainMoments
from eul_trainer.gram import block_diagonal_of


def fuse(job: Job) -> Fused:
    """Put layers side by side, and correct them where a retain set is given.

    Args:
        job: The fusion.

    Returns:
        The layers, at rank N r.
    """
    if not job.moments:
        return Fused(layers=concat(job.members))
    settings, facts = job.settings, {}
    retained, limit = job.retained, settings.retain_limit
    if retained is not None and limit is not None:

        def rise(rho: float) -> float:
            layers = corrected(job.members, job.moments, replace(job.settings, rho=rho))
            return _rise(retained, layers, job.settings)

        rho, facts["retain_rise"] = least_weight(rise, limit)
        settings = replace(settings, rho=rho)
        facts["rho"] = rho
    layers = corrected(job.members, job.moments, settings)
    if retained is not None and settings.heal_steps:
        layers = heal(retained, layers, _joined_grams(job.members), settings)
        facts["retain_rise"] = _rise(retained, layers, settings)
    return Fused(layers=layers, facts=facts)


def _rise(retained: Retained, layers: Mapping[str, LayerWeights], settings: FuseSettings) -> float:
    return round(worst(retained.rises(layers, settings.calibration_rows)), 6)


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


def _joined_grams(members: Sequence[Member]) -> dict[str, torch.Tensor]:
    return {module: block_diagonal_of(grams) for module, grams in forget_grams(members).items()}


def corrected(
    members: Sequence[Member], retain: Mapping[str, RetainMoments], settings: FuseSettings
) -> dict[str, LayerWeights]:
    """Put layers side by side and solve every up-projection again.

    Args:
        members: The layers, with their moments.
        retain: R by module path, its units in the order of the members.
        settings: Its ridge, weights and `keep_energy` are read.

    Returns:
        The layers by module path.
    """
    grams, fused = forget_grams(members), {}
    for module, layer in concat(members).items():
        forget = block_diagonal_of(grams[module])
        up = resolve_up(layer.up, forget, retain[module].units, settings.weight_of(module), settings.ridge)
        if settings.keep_energy:
            up = rescaled(up, layer.up, grams[module])
        fused[module] = LayerWeights(layer.down, up, layer.bias, layer.activation)
    return fused


def rescaled(up: torch.Tensor, before: torch.Tensor, grams: Sequence[torch.Tensor]) -> torch.Tensor:
    """Scale each member's part of an up-projection to the output energy that it had, tr(U_i F_i U_i^T).

    Args:
        up: The up-projection, (d, N r).
        before: The up-projection whose energies are wanted, (d, N r).
        grams: The members' own unit Grams F_i.

    Returns:
        The scaled up-projection; a part without energy stays as it is.
    """
    parts = []
    sizes = [len(gram) for gram in grams]
    for mine, old, gram in zip(torch.split(up, sizes, 1), torch.split(before, sizes, 1), grams, strict=True):
        now, then = (float((part.double() @ gram.double() * part.double()).sum()) for part in (mine, old))
        parts.append(mine * (then / now) ** 0.5 if now > 0 else mine)
    return torch.cat(parts, dim=1)
