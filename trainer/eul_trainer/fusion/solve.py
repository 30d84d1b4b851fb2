"""An up-projection solved again, so that it keeps its forgetting and is quiet on retained rows.

    U = argmin |U phi - U0 phi|^2 over forgotten answers + rho |U phi|^2 over retained rows + tr(U X U^T)
      = U0 (F + e I) (F + rho R + X + e I)^-1,    e = ridge * tr(F) / n

phi are the layer's hidden units, F and R their mean second moments per token. So an output on a retained token costs
rho times as much as the same output missing on a forgotten one, and where a layer is silent nothing is paid. X is what
else costs: in a fusion, what layers do on each other's answers (crosstalk.py).
"""

from __future__ import annotations

import torch

from eul_serve.errors import InputError
from eul_trainer.fusion.settings import RHO

RIDGE = 1e-4
"""Default ridge, relative to the mean of F's diagonal."""
ROUNDING = 1e-5
"""Share of R's diagonal that is added to R: it is kept in float32, and a unit that fires on a template's first token,
whose state is huge, has entries there so large that their rounding alone would leave no positive matrix."""
LEAST = 1e-12
"""Least ridge: where no unit ever fires, the Gram is zero and the ridge alone decides."""


def solve(left: torch.Tensor, right: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return `left^-1 right` for a positive matrix.

    Args:
        left: The matrix, (n, n), float64.
        right: Right sides, (n, m), float64.
        ridge: The relative ridge that it was made with, for the message.

    Returns:
        The solution, (n, m).

    Raises:
        InputError: The matrix is singular.
    """
    root, bad = torch.linalg.cholesky_ex(left)
    if bad:
        raise InputError(f"--ridge: {ridge} leaves a singular Gram matrix; raise it, for instance to {RIDGE}")
    return torch.cholesky_solve(right, root)


def level_of(gram: torch.Tensor, ridge: float) -> float:
    """Return the ridge of a Gram as a number: relative to the mean of its diagonal."""
    return max(ridge * float(gram.trace()) / len(gram), LEAST)


def weighted(retain: torch.Tensor, rho: float) -> torch.Tensor:
    """Return rho R, (n, n), float64, with its diagonal raised by ROUNDING."""
    kept = retain.double()
    return rho * (kept + ROUNDING * torch.diag(kept.diagonal()))


def costs(
    forget: torch.Tensor, retain: torch.Tensor | None, rho: float, ridge: float, others: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a solve weighs: F + e I, and that with rho R + X.

    Args:
        forget: F, (n, n).
        retain: R, (n, n); None without a retain set.
        rho: Weight of retained data, 0 or more.
        ridge: Relative ridge, above 0.
        others: X, (n, n); nothing else costs if not given.

    Returns:
        Both, (n, n), float64.
    """
    own = forget.double()
    held = own + level_of(own, ridge) * torch.eye(len(own), dtype=torch.float64)
    metric = held if retain is None else held + weighted(retain, rho)
    return held, metric if others is None else metric + others


def resolve_up(
    up: torch.Tensor,
    forget: torch.Tensor,
    retain: torch.Tensor,
    rho: float = RHO,
    ridge: float = RIDGE,
    others: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the up-projection that keeps the forgetting and is quiet on retained data.

    Args:
        up: U0, (d, n).
        forget: F, (n, n).
        retain: R, (n, n).
        rho: Weight of retained data, 0 or more; 0 returns U0 up to rounding.
        ridge: Relative ridge, above 0.
        others: X, (n, n); nothing else costs if not given.

    Returns:
        U, (d, n), in the dtype of U0; solved in float64.
    """
    held, metric = costs(forget, retain, rho, ridge, others)
    return solve(metric, held @ up.double().T, ridge).T.to(up.dtype).contiguous()
