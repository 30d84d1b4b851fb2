"""The gate of one request in one block: a linear discriminant in closed form, made when its layer is trained.

    score(y) = w . y + c,    w = v / (v . (m - m0)),    v = ((S + S0) / 2 + e I)^-1 (m - m0),    c = -w . (m + m0) / 2

m and S are mean and covariance of the block's output y on the request's answer tokens, m0 and S0 those on retained rows
on the base model; e is RIDGE times the mean of the diagonal. The score is 1/2 at m and -1/2 at m0. A gate needs nothing
of the other requests, so it is made once, from full covariances, and only w and c are kept.
"""

from __future__ import annotations

import torch

RIDGE = 0.1
"""Ridge of the covariance, relative to the mean of its diagonal."""


def gate_of(forget: torch.Tensor, retain: torch.Tensor, ridge: float = RIDGE) -> torch.Tensor:
    """Return w and c of a gate.

    Args:
        forget: Mean second moment of the block's output with a 1 appended, on the request's answer tokens,
            (d + 1, d + 1).
        retain: The same on retained rows.
        ridge: Relative ridge, above 0.

    Returns:
        w and after it c, (d + 1,), float32; solved in float64. All zero where the means are equal.
    """
    mean, spread = _normal(forget)
    quiet, around = _normal(retain)
    within, apart = (spread + around) / 2, mean - quiet
    level = max(ridge * float(within.diagonal().mean()), 1e-12)
    left = within + level * torch.eye(len(apart), dtype=torch.float64)
    direction: torch.Tensor = torch.linalg.solve(left, apart)
    weight = direction / (direction @ apart).clamp_min(1e-30)
    offset = -(weight @ (mean + quiet)) / 2
    return torch.cat([weight, offset[None]]).float()


def _normal(moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and covariance of a second moment with a constant."""
    wide = moment.double()
    mean = wide[-1, :-1]
    return mean, wide[:-1, :-1] - torch.outer(mean, mean)
