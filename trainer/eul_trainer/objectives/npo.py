"""Negative preference optimisation (Zhang, Lin, Bai & Mei, arXiv 2404.05868, eq. 3).

    - gamma 2/beta mean log sigmoid(- beta log(p(y) / p_teacher(y))) + alpha retain

`log p(y)` is the sum of the log-probabilities of a row's answer tokens (never of raw logits: those lack the partition
term, a known mistake), and the mean is over rows. It is bounded below by 0: where the student's probability is far
below the teacher's, the gradient is gone. As beta falls to 0 it becomes gradient ascent.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import functional

from eul_trainer.objectives.terms import forget_losses, log_ratios, mean, retained
from eul_trainer.objectives.view import FORGET, Losses, View
from eul_trainer.objectives.weights import check_above_zero


@dataclass(frozen=True, slots=True, kw_only=True)
class NpoWeights:
    """Weights of negative preference optimisation."""

    beta: float = 0.1
    """Inverse temperature: how soon a forgotten row counts no more."""
    gamma: float = 1.0
    """Weight of the forget term."""
    alpha: float = 1.0
    """Weight of the retain term."""
    retain: str = "nll"
    """Retain term: nll or kl."""

    def __post_init__(self) -> None:
        check_above_zero("beta", self.beta)


def npo_loss(view: View, weights: NpoWeights) -> Losses:
    """Return the negative preference objective; the teacher is its reference model.

    Args:
        view: One batch.
        weights: The weights.

    Returns:
        The loss and its parts.
    """
    preference = -2 / weights.beta * mean(functional.logsigmoid(-weights.beta * log_ratios(view, FORGET)))
    keep = retained(view, weights.retain)
    parts = {"forget": mean(forget_losses(view)), "retain": keep, "preference": preference}
    return Losses(total=weights.gamma * preference + weights.alpha * keep, parts=parts)
