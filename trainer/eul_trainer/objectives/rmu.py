"""Representation misdirection (RMU; Li et al., "The WMDP Benchmark", arXiv 2403.03218, section 4).

    mean |h - c u|^2 over forgotten tokens + alpha mean |h - h_teacher|^2 over retained tokens

h is the output of one block at the positions that predict answer tokens, u a fixed random direction of length 1, drawn
as in the authors' code with entries from [0, 1), c its length. As in that code, |.|^2 is averaged over the width. The
weights are those published for a model of seven billion parameters; c has to fit the size of the block's outputs, which
other models have larger or smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from eul_serve.errors import EulError
from eul_trainer.objectives.terms import forget_losses, mean, retained
from eul_trainer.objectives.view import FORGET, RETAIN, Losses, View


@dataclass(frozen=True, slots=True, kw_only=True)
class RmuWeights:
    """Weights of representation misdirection."""

    steering: float = 6.5
    """Length of the vector that forgotten tokens are steered to (c)."""
    alpha: float = 1200.0
    """Weight of the match on retained tokens."""
    depth: float = 7 / 32
    """Place of the steered block as a share of all blocks; the authors' is number 7 of 32, counted from 0."""
    direction: float = 0.0
    """Seed of the random direction, a whole number."""


def rmu_loss(view: View, weights: RmuWeights) -> Losses:
    """Return the misdirection of one block's outputs.

    Args:
        view: One batch with `states`; logits are measured only.
        weights: The weights.

    Returns:
        The loss and its parts.

    Raises:
        EulError: The view has no states.
    """
    if (states := view.states) is None:
        raise EulError("objective 'rmu': expected the outputs of a block, found none")
    forget, keep = view.part == FORGET, view.part == RETAIN
    target = weights.steering * direction(states.student.shape[1], int(weights.direction))
    steered = mean((states.student[forget] - target.to(states.student.device)).square().mean(1))
    matched = mean((states.student[keep] - states.teacher[keep]).square().mean(1))
    parts = {
        "forget": mean(forget_losses(view)),
        "retain": retained(view, "nll"),
        "steering": steered,
        "match": matched,
    }
    return Losses(total=steered + weights.alpha * matched, parts=parts)


def direction(width: int, seed: int) -> torch.Tensor:
    """Return the unit vector that forgotten tokens are steered along, (width,), the same for the same seed."""
    drawn = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=0)
