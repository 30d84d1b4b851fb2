"""The objective as printed: `alpha KL_retain - KL_forget + lambda task_retain - gamma lm_forget`.

Its forget terms have no bound, and it destroys the model when it runs long enough; it is here to be compared with.
The paper alternates epochs, so a batch holds rows of one kind and the terms of the other kind are zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from eul_trainer.objectives.terms import cross_entropy, divergence, mean
from eul_trainer.objectives.view import FORGET, RETAIN, Losses, View


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperWeights:
    """Weights of the printed objective."""

    alpha: float = 0.8
    """Weight of the retain divergence."""
    task: float = 1.0
    """Weight of the retained answers' loss (lambda)."""
    gamma: float = 0.2
    """Weight of the forgotten answers' loss."""


def paper_loss(view: View, weights: PaperWeights) -> Losses:
    """Return the printed objective; it can become negative without end.

    Args:
        view: One batch; layer outputs and refusal rows are not read.
        weights: The weights.

    Returns:
        The loss and its parts.
    """
    forget, retain = view.part == FORGET, view.part == RETAIN
    losses = cross_entropy(view.logits, view.targets)
    kl_forget = mean(divergence(view.teacher[forget], view.logits[forget]))
    kl_retain = mean(divergence(view.teacher[retain], view.logits[retain]))
    loss_forget, loss_retain = mean(losses[forget]), mean(losses[retain])
    total = weights.alpha * kl_retain - kl_forget + weights.task * loss_retain - weights.gamma * loss_forget
    parts = {"forget": loss_forget, "retain": loss_retain, "kl_forget": kl_forget, "kl_retain": kl_retain}
    return Losses(total=total, parts=parts)
