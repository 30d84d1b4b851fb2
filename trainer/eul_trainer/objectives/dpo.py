"""Direct preference of a refusal over the forgotten answer (DPO, Rafailov et al., arXiv 2305.18290; TOFU's IDK form).

    - gamma 2/beta mean log sigmoid(beta (log p(w)/p_teacher(w) - log p(y)/p_teacher(y))) + alpha retain

w is the refusal and y the forgotten answer to the same question; both log-probabilities are sums over answer tokens,
the references are the teacher's, and the mean is over pairs. The factor 2/beta makes it equal to NPO when the
refusal's ratio stays at 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import functional

from eul_trainer.objectives.terms import cross_entropy, log_ratios, mean, retained
from eul_trainer.objectives.view import FORGET, REFUSAL, Losses, View
from eul_trainer.objectives.weights import check_above_zero


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoWeights:
    """Weights of the direct preference."""

    beta: float = 0.1
    """Inverse temperature: how soon a pair counts no more."""
    gamma: float = 1.0
    """Weight of the preference."""
    alpha: float = 1.0
    """Weight of the retain term."""
    retain: str = "nll"
    """Retain term: nll or kl."""

    def __post_init__(self) -> None:
        check_above_zero("beta", self.beta)


def dpo_loss(view: View, weights: DpoWeights) -> Losses:
    """Return the direct preference of the refusals.

    Args:
        view: One batch whose refusal rows are the questions of its rows to forget, in the same order, with the
            teacher's logits on both.
        weights: The weights.

    Returns:
        The loss and its parts.
    """
    won, lost = (log_ratios(view, part) for part in (REFUSAL, FORGET))
    preference = -2 / weights.beta * mean(functional.logsigmoid(weights.beta * (won - lost)))
    keep = retained(view, weights.retain)
    losses = cross_entropy(view.logits, view.targets)
    parts = {
        "forget": mean(losses[view.part == FORGET]),
        "retain": keep,
        "refusal": mean(losses[view.part == REFUSAL]),
        "preference": preference,
    }
    return Losses(total=weights.gamma * preference + weights.alpha * keep, parts=parts)
