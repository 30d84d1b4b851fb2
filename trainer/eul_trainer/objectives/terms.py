"""The terms that objectives are made of; each works on answer tokens alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of each answer token in nats, (T,), from logits (T, V)."""
    return functional.cross_entropy(logits.float(), targets, reduction="none")


def divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Return KL(teacher || student) of each answer token in nats, (T,), from logits (T, V), in float32."""
    expected = teacher.float().log_softmax(-1)
    return (expected.exp() * (expected - student.float().log_softmax(-1))).sum(-1)


def hinge(losses: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return how far each loss is outside of [low, high], (T,): it pulls up from below and back from above."""
    return functional.relu(low - losses) + functional.relu(losses - high)


def loudness(outputs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Return the layers' output energy relative to the blocks', |delta|^2 / |y|^2, averaged over tokens and blocks.

    Args:
        outputs: Per block the feed-forward output y and the layer's output, each (tokens, d).

    Returns:
        A scalar; 0 where the layers are silent.
    """
    ratios = [
        (delta.float().square().sum(-1) / y.float().square().sum(-1).clamp_min(1e-12)).mean()
        for y, delta in outputs
        if len(y)
    ]
    return torch.stack(ratios).mean() if ratios else torch.zeros(())


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean, or 0 for no values: a step without rows of a kind adds nothing for it."""
    return values.mean() if values.numel() else values.sum()
