"""Fewer hidden units: those whose loss costs least are dropped, and U is solved again on the rest.

A unit is a function act(d . y + b), so units cannot be mixed as singular vectors are; they can only be chosen. With
M = F + rho R + X + e I (solve.py) and C = (F + e I) U0^T, the best U on a set S of units is (M_SS^-1 C_S)^T and keeps
tr(C_S^T M_SS^-1 C_S) of the output energy. Dropping unit j from S costs exactly |W_j|^2 / (M_SS^-1)_jj, W = M_SS^-1 C_S
(optimal brain surgeon, Hassibi & Stork 1993), so units are dropped one by one, the cheapest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.concat import concat
from eul_trainer.fusion.crosstalk import crosstalk
from eul_trainer.fusion.job import Fused, Job, forget_grams
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.fusion.solve import costs, solve
from eul_trainer.moments.gram import block_diagonal_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The least-squares problem of one module."""

    metric: torch.Tensor  # M, (n, n), float64
    target: torch.Tensor  # C, (n, d), float64


def fuse(job: Job) -> Fused:
    """Put layers side by side and drop units, equally many in every block.

    Args:
        job: The fusion.

    Returns:
        The layers at the wanted rank, or at the least one at which every block keeps the wanted share of energy.
    """
    layers, facts = compressed(job, job.settings.rank)
    return Fused(layers=layers, facts=facts)


def compressed(job: Job, rank: int | None) -> tuple[dict[str, LayerWeights], dict[str, Any]]:
    """Do what `fuse` does for a rank; None takes the rank from the settings' energy."""
    layers, grams, settings = concat(job.members), forget_grams(job.members), job.settings
    heard = crosstalk(job, layers)
    problems, orders, shares = {}, {}, {}
    for module, layer in layers.items():
        retain = job.moments[module].units if job.moments else None
        problems[module] = problem(
            layer.up, block_diagonal_of(grams[module]), retain, module, settings, heard.get(module)
        )
        orders[module], shares[module] = drop_order(problems[module], settings.ridge, rank or 1)
    units = len(next(iter(orders.values())))
    if rank is None:
        rank = max(_least(found, settings.energy) for found in shares.values())
    rank = min(rank, units)
    fused = {}
    for module, layer in layers.items():
        kept = sorted(orders[module][units - rank :])
        fused[module] = _chosen(layer, kept, problems[module], settings.ridge)
    kept_energy = min(float(found[rank]) for found in shares.values())
    return fused, {"rank": rank, "energy_kept": round(kept_energy, 6)}


def problem(
    up: torch.Tensor,
    forget: torch.Tensor,
    retain: torch.Tensor | None,
    module: str,
    settings: FuseSettings,
    others: torch.Tensor | None = None,
) -> Problem:
    """Return M and C of a module.

    Args:
        up: U0, (d, n).
        forget: F, (n, n).
        retain: R, (n, n), or None without a retain set.
        module: Path of the module, for its weight.
        settings: Its ridge and weights are read.
        others: X, (n, n); nothing else costs if not given.

    Returns:
        The problem.
    """
    held, metric = costs(forget, retain, settings.weight_of(module), settings.ridge, others)
    return Problem(metric=metric, target=held @ up.double().T)


def drop_order(found: Problem, ridge: float, least: int) -> tuple[list[int], list[float]]:
    """Drop units one by one, the cheapest first.

    Args:
        found: The problem.
        ridge: Relative ridge, for messages.
        least: Units at which to stop.

    Returns:
        The units, those that go first, in their order; and by number of units left, 0 to n, the share of energy kept,
        0 below the least.
    """
    units = len(found.metric)
    inverse = solve(found.metric, torch.eye(units, dtype=torch.float64), ridge)
    weights = inverse @ found.target
    whole = energy = float((found.target * weights).sum())
    gone = torch.zeros(units, dtype=torch.bool)
    order, shares = [], [0.0] * units + [1.0]
    for left in range(units - 1, least - 1, -1):
        costs = weights.square().sum(1) / inverse.diagonal()
        place = int(costs.masked_fill(gone, torch.inf).argmin())
        energy -= float(costs[place])
        row, pivot = inverse[place].clone(), float(inverse[place, place])
        weights.addr_(row, weights[place].clone(), alpha=-1 / pivot)
        inverse.addr_(row, row, alpha=-1 / pivot)  # symmetric, so the row is the column
        gone[place] = True
        order.append(place)
        shares[left] = max(0.0, energy / whole) if whole else 1.0  # layers that say nothing keep all of it
    return [*order, *(~gone).nonzero()[:, 0].tolist()], shares


def _least(shares: list[float], energy: float) -> int:
    """Return the least rank, at least 1, that keeps a share of energy; all units keep 1."""
    return next(rank for rank in range(1, len(shares)) if shares[rank] >= energy)


def _chosen(layer: LayerWeights, kept: list[int], found: Problem, ridge: float) -> LayerWeights:
    up = solve(found.metric[kept][:, kept], found.target[kept], ridge).T.to(layer.up.dtype).contiguous()
    bias = None if layer.bias is None else layer.bias[kept].contiguous()
    return LayerWeights(layer.down[kept].contiguous(), up, bias, layer.activation)
