"""Layers side by side, their up-projection solved again against retained rows, and no further than it takes.

F of solve.py may use only what each layer stores, so it is block-diagonal: each member's own Gram. R is measured on the
base model when layers are fused, for retained data is at hand then. X is estimated by crosstalk.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from eul_trainer.fusion.crosstalk import crosstalk
from eul_trainer.fusion.gated import Stack
from eul_trainer.fusion.heal import heal
from eul_trainer.fusion.job import Fused, Job, forget_grams
from eul_trainer.fusion.limit import least_weight
from eul_trainer.fusion.retained import Retained, worst
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.fusion.solve import resolve_up
from eul_trainer.moments.gram import block_diagonal_of

LEAST_FACTOR, LARGEST_FACTOR = 0.5, 2.0
"""Ends of the factors by which a member's part is scaled back to its energy."""


def correct(job: Job, stack: Mapping[str, Stack]) -> Fused:
    """Solve U again where a retain set is given, with the settings' weight or the least within the limit; then heal.

    Args:
        job: The fusion.
        stack: The layers side by side, by module path.

    Returns:
        The corrected layers; the given ones without a retain set.
    """
    if not job.moments:
        return Fused(layers=stack)
    settings, facts = job.settings, {}
    heard = crosstalk(job, stack)
    retained, limit = job.retained, settings.retain_limit
    if retained is not None and limit is not None:

        def rise(rho: float) -> float:
            return _rise(retained, solved(job, stack, replace(job.settings, rho=rho), heard), job.settings)

        rho, facts["retain_rise"] = least_weight(rise, limit)
        settings = replace(settings, rho=rho)
        facts["rho"] = rho
    layers = solved(job, stack, settings, heard)
    if retained is not None and settings.heal_steps:
        layers = heal(retained, layers, _joined(job), settings)
        facts["retain_rise"] = _rise(retained, layers, settings)
    return Fused(layers=layers, facts=facts)


def _rise(retained: Retained, layers: Mapping[str, Stack], settings: FuseSettings) -> float:
    return round(worst(retained.rises(layers, settings.calibration_rows)), 6)


def _joined(job: Job) -> dict[str, torch.Tensor]:
    return {module: block_diagonal_of(grams) for module, grams in forget_grams(job.members).items()}


def solved(
    job: Job, stack: Mapping[str, Stack], settings: FuseSettings, heard: Mapping[str, torch.Tensor] | None = None
) -> dict[str, Stack]:
    """Solve the up-projections of layers side by side again.

    Args:
        job: The fusion; its members' moments and those on retained rows are read.
        stack: The layers.
        settings: The ridge, weights and `keep_energy` are read. A block of weight 0 without X stays bit for bit.
        heard: X by module path; without it nothing but retained rows counts.

    Returns:
        The layers by module path.
    """
    found: dict[str, Stack] = {}
    weights = {module: settings.weight_of(module) for module in stack}
    heard = heard or {}
    grams = forget_grams(job.members) if heard or any(weights.values()) else {}
    for module, layer in stack.items():
        found[module] = layer
        if weights[module] or module in heard:
            forget = block_diagonal_of(grams[module])
            retain = job.moments[module].units
            up = resolve_up(layer.up, forget, retain, weights[module], settings.ridge, heard.get(module))
            up = rescaled(up, layer.up, grams[module]) if settings.keep_energy else up
            found[module] = replace(layer, up=up)
    return found


def rescaled(up: torch.Tensor, before: torch.Tensor, grams: Sequence[torch.Tensor]) -> torch.Tensor:
    """Scale each member's part of an up-projection to the output energy that it had, tr(U_i F_i U_i^T).

    Args:
        up: The up-projection, (d, N r).
        before: The up-projection whose energies are wanted, (d, N r).
        grams: The members' own unit Grams F_i.

    Returns:
        The scaled up-projection, each part by a factor of LEAST_FACTOR to LARGEST_FACTOR.
    """
    parts = []
    sizes = [len(gram) for gram in grams]
    for mine, old, gram in zip(torch.split(up, sizes, 1), torch.split(before, sizes, 1), grams, strict=True):
        now, then = (float((part.double() @ gram.double() * part.double()).sum()) for part in (mine, old))
        factor = (then / now) ** 0.5 if now > 0 else 1.0
        parts.append(mine * min(max(factor, LEAST_FACTOR), LARGEST_FACTOR))
    return torch.cat(parts, dim=1)
