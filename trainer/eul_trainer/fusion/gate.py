"""Layers side by side, each request behind a gate per block and token, from stored moments alone.

    y + sum_i g_i(y) U_i act(D_i y + b_i),    g_i = clamp(1/2 + k (w_i . y + c_i), 0, 1)

w_i and c_i are a linear discriminant between the block's output on the request's answer tokens, N(m_i, S_i), and on
what it must leave alone, half retained rows and half the other requests, N(m, S):

    w = v / (v . (m_i - m)),   v = ((S_i + S) / 2 + e I)^-1 (m_i - m),   c = -w . (m_i + m) / 2

so that with k = 1 the gate is open at m_i and shut at m. The bundle format keeps names free for gates and its version 1
has none, so this is measured and not written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.concat import concat
from eul_trainer.fusion.hooks import hidden_units
from eul_trainer.fusion.job import Fused, Job
from eul_trainer.fusion.normal import Normal, forgotten, kept
from eul_trainer.fusion.solve import level_of, solve


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedLayer:
    """The layers of one block, with a gate for each request."""

    layer: LayerWeights
    """The layers side by side."""
    weight: torch.Tensor  # (N, d)
    bias: torch.Tensor  # (N,)
    ranks: tuple[int, ...]
    """Units of each request, in order."""
    slope: float
    """k."""

    def gates(self, y: torch.Tensor) -> torch.Tensor:
        """Return how far each gate is open, (..., N), 0 to 1, for y (..., d)."""
        score = torch.nn.functional.linear(y, self.weight.to(y), self.bias.to(y))
        return (0.5 + self.slope * score).clamp(0, 1)

    def apply(self, output: torch.Tensor) -> torch.Tensor:
        """Return the block's output with the gated layers behind it, (..., d), for an output y (..., d)."""
        y = output.to(torch.promote_types(output.dtype, torch.float32))
        bias = None if self.layer.bias is None else self.layer.bias.to(y)
        placed = LayerWeights(self.layer.down.to(y), self.layer.up.to(y), bias, self.layer.activation)
        counts = torch.tensor(self.ranks, device=y.device)
        units = hidden_units(placed, y) * self.gates(y).repeat_interleave(counts, dim=-1)
        return (y + torch.nn.functional.linear(units, placed.up)).to(output.dtype)


def fuse(job: Job) -> Fused:
    """Put layers side by side behind gates.

    Args:
        job: The fusion; its members' moments have the inputs', and so have those on retained rows.

    Returns:
        The gated layers.
    """
    ranks = tuple(member.rank for member in job.members)
    gated = {}
    for module, layer in concat(job.members).items():
        requests = [forgotten(member, module) for member in job.members]
        quiet = kept(job, module)
        found = [
            discriminant(mine, quiet, [*requests[:place], *requests[place + 1 :]], job.settings.ridge)
            for place, mine in enumerate(requests)
        ]
        gated[module] = GatedLayer(
            layer=layer,
            weight=torch.stack([weight for weight, _ in found]).float(),
            bias=torch.stack([bias for _, bias in found]).float(),
            ranks=ranks,
            slope=job.settings.gate_slope,
        )
    return Fused(layers=gated)


def discriminant(
    mine: Normal, quiet: Normal, others: Sequence[Normal], ridge: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return w and c of one request's gate in one block.

    Args:
        mine: The request's distribution.
        quiet: That of retained rows.
        others: Those of the other requests, at least one.
        ridge: Relative ridge.

    Returns:
        w, (d,), and c, a scalar, float64.
    """
    mean = (quiet.mean + torch.stack([other.mean for other in others]).mean(0)) / 2
    spread = (quiet.covariance + torch.stack([other.covariance for other in others]).mean(0)) / 2
    within = (mine.covariance + spread) / 2
    apart = mine.mean - mean
    left = within + level_of(within, ridge) * torch.eye(len(apart), dtype=torch.float64)
    direction = solve(left, apart[:, None], ridge)[:, 0]
    weight = direction / (direction @ apart).clamp_min(1e-12)
    return weight, -(weight @ (mine.mean + mean)) / 2
