"""Simple negative preference optimisation (Fan et al., arXiv 2410.07163, eq. 4).

    - gamma 2/beta mean log sigmoid(- beta/|y| log p(y) - margin) + alpha retain

The reference of NPO is gone: a row's log-probability is divided by its length |y|, and compared with a margin. The
mean is over rows. beta, gamma and alpha are those published for TOFU forget10, the margin is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import functional

from eul_trainer.objectives.terms import forget_losses, mean, retained, row_means
from eul_trainer.objectives.view import FORGET, Losses, View
from eul_trainer.objectives.weights import check_above_zero


@dataclass(frozen=True, slots=True, kw_only=True)
class SimNpoWeights:
    """Weights of simple negative preference optimisation."""

    beta: float = 4.5
    """Inverse temperature of the mean loss of a row."""
    margin: float = 0.0
    """Reward margin, in units of beta nats: the larger, the longer a row counts."""
    gamma: float = 0.125
    """Weight of the forget term."""
    alpha: float = 1.0
    """Weight of the retain term."""
    retain: str = "nll"
    """Retain term: nll or kl."""

    def __post_init__(self) -> None:
        check_above_zero("beta", self.beta)


def simnpo_loss(view: View, weights: SimNpoWeights) -> Losses:
    """Return the simple negative preference objective.

    Args:
        view: One batch; the teacher is read for the retain term `kl` alone.
        weights: The weights.

    Returns:
        The loss and its parts.
    """
    losses = forget_losses(view)
    lengthwise = row_means(losses, view.rows[view.part == FORGET])  # - log p(y) / |y| of each row
    preference = -2 / weights.beta * mean(functional.logsigmoid(weights.beta * lengthwise - weights.margin))
    keep = retained(view, weights.retain)
    parts = {"forget": mean(losses), "retain": keep, "preference": preference}
    return Losses(total=weights.gamma * preference + weights.alpha * keep, parts=parts)
