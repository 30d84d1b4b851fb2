"""Gradient ascent on the forgotten answers (Jang et al., arXiv 2210.01504; a baseline of TOFU, arXiv 2401.06121).

    - gamma NLL_forget

It has no bound and looks at nothing that is to be kept: the lower end of every comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

from eul_trainer.objectives.terms import forget_losses, mean, retained
from eul_trainer.objectives.view import Losses, View


@dataclass(frozen=True, slots=True, kw_only=True)
class AscentWeights:
    """Weights of gradient ascent."""

    gamma: float = 1.0
    """Weight of the forgotten answers' loss."""


def ascent_loss(view: View, weights: AscentWeights) -> Losses:
    """Return minus the loss of the forgotten answers, averaged over their tokens.

    Args:
        view: One batch; retained rows are measured only.
        weights: The weights.

    Returns:
        The loss and its parts.
    """
    forget = mean(forget_losses(view))
    return Losses(total=-weights.gamma * forget, parts={"forget": forget, "retain": retained(view, "nll")})
