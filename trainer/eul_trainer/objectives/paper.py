"""The objective as printed by Chen & Yang, "Unlearn What You Want to Forget" (EMNLP 2023, arXiv 2310.20150), eq. 2-5.

    alpha KL_retain - KL_forget + lambda task_retain - gamma lm_forget

KL is teacher-first, per answer token. `task` is the retained answers' loss. `lm` is the loss of masked words of the
forgotten texts where the model is an encoder-decoder, as in the paper, and of the forgotten answers where it is a
decoder, which has no masked words. The forget terms have no bound, and destroy the model when training runs long
enough; the objective is here to be compared with. The paper alternates epochs, so that a batch holds rows of one kind
and the terms of the other kind are zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from eul_trainer.objectives.terms import cross_entropy, divergence, mean
from eul_trainer.objectives.view import FORGET, MASKED, RETAIN, Losses, View


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperWeights:
    """Weights of the printed objective."""

    alpha: float = 0.8
    """Weight of the retain divergence."""
    task: float = 1.0
    """Weight of the retained answers' loss (lambda)."""
    gamma: float = 0.2
    """Weight of the loss of the forgotten texts' masked words, or answers."""


def paper_loss(view: View, weights: PaperWeights) -> Losses:
    """Return the printed objective; it can become negative without end.

    Args:
        view: One batch; layer outputs and refusal rows are not read, masked-word rows are where there are any.
        weights: The weights.

    Returns:
        The loss and its parts.
    """
    forget, retain = view.part == FORGET, view.part == RETAIN
    losses = cross_entropy(view.logits, view.targets)
    kl_forget = mean(divergence(view.teacher[forget], view.logits[forget]))
    kl_retain = mean(divergence(view.teacher[retain], view.logits[retain]))
    loss_forget, loss_retain = mean(losses[forget]), mean(losses[retain])
    language = mean(losses[view.part == MASKED]) if view.masked else loss_forget
    total = weights.alpha * kl_retain - kl_forget + weights.task * loss_retain - weights.gamma * language
    parts = {"forget": loss_forget, "retain": loss_retain, "kl_forget": kl_forget, "kl_retain": kl_retain}
    if view.masked:
        parts["masked"] = language
    return Losses(total=total, parts=parts)
