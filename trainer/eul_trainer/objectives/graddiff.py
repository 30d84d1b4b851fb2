"""Gradient difference (Liu, Liu & Stone, arXiv 2203.12817; named so in TOFU, arXiv 2401.06121).

    - gamma NLL_forget + alpha retain

`retain` is the retained answers' loss, or their divergence from the base model. The forget term has no bound.
"""

from __future__ import annotations

from dataclasses import dataclass

from eul_trainer.objectives.terms import forget_losses, mean, retained
from eul_trainer.objectives.view import Losses, View


@dataclass(frozen=True, slots=True, kw_only=True)
class GradDiffWeights:
    """Weights of the gradient difference."""

    gamma: float = 1.0
    """Weight of the forgotten answers' loss."""
    alpha: float = 1.0
    """Weight of the retain term."""
    retain: str = "nll"
    """Retain term: nll or kl."""


def graddiff_loss(view: View, weights: GradDiffWeights) -> Losses:
    """Return the gradient difference.

    Args:
        view: One batch.
        weights: The weights.

    Returns:
        The loss and its parts.
    """
    forget, keep = mean(forget_losses(view)), retained(view, weights.retain)
    return Losses(total=weights.alpha * keep - weights.gamma * forget, parts={"forget": forget, "retain": keep})
