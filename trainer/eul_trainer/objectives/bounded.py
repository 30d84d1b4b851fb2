"""The default objective: the paper's four terms, the forgetting ones bounded, and silence on retained tokens.

    alpha KL_retain - min(KL_forget, cap) + lambda excess_retain + gamma hinge_forget + silence loudness + refusal CE

`min` and the hinge work per token, so no term can run away: beyond the cap and inside the hinge the gradient is zero.
The hinge stands for the paper's language-modelling term with both sides, and the excess for its task term: the retained
answers' loss above the base model's own, so that the layers cannot buy forgetting by improving what was never asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from eul_trainer.objectives.terms import cross_entropy, divergence, hinge, loudness, mean
from eul_trainer.objectives.view import FORGET, REFUSAL, RETAIN, Losses, View

HINGE_ABOVE = 2.0
"""How far the hinge's upper end lies above the target band, nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedWeights:
    """Weights of the bounded objective."""

    alpha: float = 2.0
    """Weight of the retain divergence."""
    forget: float = 0.3
    """Weight of the forget divergence."""
    cap: float = 3.0
    """Forget divergence beyond which a token counts no more, nats."""
    task: float = 1.0
    """Weight of the retained answers' loss above the base model's (the paper's lambda)."""
    gamma: float = 0.2
    """Weight of the hinge on the forgotten answers' loss."""
    low: float = 4.0
    """Forget loss of a token up to which the hinge pulls it up, nats."""
    high: float = 7.0
    """Forget loss of a token above which the hinge pulls it back, nats."""
    silence: float = 600.0
    """Weight of the layers' relative output energy on retained tokens."""
    refusal: float = 0.5
    """Weight of the refusal's loss."""


def hinge_ends(low: float, high: float) -> tuple[float, float]:
    """Return the hinge's ends for a target band: above it higher, as tokens spread around their mean."""
    return low, high + HINGE_ABOVE


def bounded_loss(view: View, weights: BoundedWeights) -> Losses:
    """Return the bounded objective.

    Args:
        view: One batch with rows to forget and rows to keep; refusal rows are optional.
        weights: The weights.

    Returns:
        The loss and its parts.
    """
    forget, retain, refusal = (view.part == part for part in (FORGET, RETAIN, REFUSAL))
    losses = cross_entropy(view.logits, view.targets)
    kl_forget = divergence(view.teacher[forget], view.logits[forget])
    kl_retain = mean(divergence(view.teacher[retain], view.logits[retain]))
    own = cross_entropy(view.teacher[retain], view.targets[retain])
    excess = mean(functional.relu(losses[retain] - own))
    pull = mean(hinge(losses[forget], weights.low, weights.high))
    loud = loudness(view.outputs)
    refused = mean(losses[refusal])
    total = (
        weights.alpha * kl_retain
        - weights.forget * mean(kl_forget.clamp(max=weights.cap))
        + weights.task * excess
        + weights.gamma * pull
        + weights.silence * loud
        + weights.refusal * refused
    )
    parts: dict[str, torch.Tensor] = {
        "forget": mean(losses[forget]),
        "retain": mean(losses[retain]),
        "kl_forget": mean(kl_forget),
        "kl_retain": kl_retain,
        "hinge": pull,
        "loudness": loud,
        "refusal": refused,
    }
    return Losses(total=total, parts=parts)
