"""Self-distillation with adjusted logits (UNDIAL; Dong et al., arXiv 2402.10052, section 3).

    gamma mean CE(softmax(z_teacher - beta e_y), softmax(z)) + alpha retain

On forgotten answer tokens the student imitates the teacher with beta taken off the logit of the true token y: a fixed
target, so nothing can run away. The mean is over tokens. beta as in OpenUnlearning; that leaves the retain term out
(alpha 0), which does not hold neighbours, so here it counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import functional

from eul_trainer.objectives.terms import dense, forget_losses, mean, retained
from eul_trainer.objectives.view import FORGET, Losses, View


@dataclass(frozen=True, slots=True, kw_only=True)
class UndialWeights:
    """Weights of the self-distillation."""

    beta: float = 10.0
    """What is taken off the true token's logit."""
    gamma: float = 1.0
    """Weight of the distillation."""
    alpha: float = 1.0
    """Weight of the retain term."""
    retain: str = "nll"
    """Retain term: nll or kl."""


def undial_loss(view: View, weights: UndialWeights) -> Losses:
    """Return the distillation from the adjusted teacher.

    Args:
        view: One batch.
        weights: The weights.

    Returns:
        The loss and its parts.
    """
    forget = view.part == FORGET
    student, teacher = dense(view.logits[forget]), dense(view.teacher[forget])
    true = functional.one_hot(view.targets[forget], teacher.shape[1])
    wanted = (teacher - weights.beta * true).softmax(1)
    distilled = mean(-(wanted * student.log_softmax(1)).sum(1))
    keep = retained(view, weights.retain)
    parts = {"forget": mean(forget_losses(view)), "retain": keep, "distilled": distilled}
    return Losses(total=weights.gamma * distilled + weights.alpha * keep, parts=parts)
