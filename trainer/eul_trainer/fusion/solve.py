"""An up-projection solved again, so that it keeps its forgetting and is quiet on retained rows.

    U = argmin |U phi - U0 phi|^2 over forgotten answers + rho s |U phi|^2 over retained rows
      = U0 (F + e I) (F + rho s R + e I)^-1,    e = ridge * tr(F) / n,    s = tr(F) / tr(R)

phi are the layer's hidden units, F and R their mean second moments. s brings R to the size of F, since layers that were
trained to be silent on retained data hardly fire there.
"""

from __future__ import annotations

import torch

RHO = 0.1
"""Default weight of retained data."""
RIDGE = 1e-4
"""Default ridge, relative to the mean of F's diagonal."""


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
