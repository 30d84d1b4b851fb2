"""The terms that objectives are made of; each works on answer tokens alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch.nn import functional

from eul_serve.errors import EulError
from eul_trainer.forward.head import Expected, Scores
from eul_trainer.objectives.view import FORGET, RETAIN, View

SURE = 1e-3
"""Loss of a token that is known by heart, nats: its probability is 0.999."""


def cross_entropy(logits: torch.Tensor | Scores | Expected, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of each answer token in nats, (T,), from logits (T, V) or what stands for them."""
    if isinstance(logits, Scores):
        return logits.cross_entropy(targets)
    if isinstance(logits, Expected):
        return logits.losses
    return functional.cross_entropy(logits.float(), targets, reduction="none")


def divergence(teacher: torch.Tensor | Expected, student: torch.Tensor | Scores) -> torch.Tensor:
    """Return KL(teacher || student) of each answer token in nats, (T,), from logits (T, V) or both stand-ins."""
    if isinstance(teacher, Expected) and isinstance(student, Scores):
        return teacher.divergence(student)
    expected = dense(teacher).log_softmax(1)
    return (expected.exp() * (expected - dense(student).log_softmax(1))).sum(1)


def odds_against(losses: torch.Tensor) -> torch.Tensor:
    """Return the log-odds against each answer token, log((1 - p) / p), (T,).

    Above 2 nats it is about the loss, -log p. Where a token is known by heart the loss is flat: as the token's logit
    moves by 1, the loss moves by 1 - p, and the log-odds by 1.

    Args:
        losses: Loss of each token, nats; below SURE the odds go on straight, so that rounding is not amplified further.

    Returns:
        Nats, negative where the token is likelier than not.
    """
    held = losses.clamp_min(SURE)
    return held + (-torch.expm1(-held)).log() + (losses - held) / -math.expm1(-SURE)


def hinge(losses: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return how far each token is outside of [low, high], (T,): it pulls up from below and back from above.

    Args:
        losses: Loss of each token, nats.
        low: Loss up to which it pulls up, by the log-odds, for the loss alone hardly moves what is known by heart.
        high: Loss above which it pulls back.

    Returns:
        Nats, 0 or more.
    """
    wanted = odds_against(torch.as_tensor(low, dtype=losses.dtype, device=losses.device))
    return functional.relu(wanted - odds_against(losses)) + functional.relu(losses - high)


def loudness(outputs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Return the layers' output energy relative to the blocks', |delta|^2 / |y|^2, averaged over tokens and blocks.

    Args:
        outputs: Per block the feed-forward output y and the layer's output, each (tokens, d).

    Returns:
        A scalar; 0 where the layers are silent.
    """
    ratios = [mean(delta.float().square().sum(1) / y.float().square().sum(1).clamp_min(1e-12)) for y, delta in outputs]
    return torch.stack(ratios).mean() if ratios else torch.zeros(())


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean, or 0 for no values: a step without rows of a kind adds nothing for it."""
    count = _total.get()(values.numel())
    if count == values.numel():
        return values.mean() if count else values.sum()
    return values.sum() / count


@contextmanager
def counted_over(total: Callable[[int], int]) -> Iterator[None]:
    """Take means over the values of several processes, which run the same objective on their shares of one batch.

    Each process's mean is then its part of the whole: the parts' sum is the mean over all values.

    Args:
        total: Returns the sum of a count over the processes; called once per mean, by all of them.

    Yields:
        Nothing.
    """
    token = _total.set(total)
    try:
        yield
    finally:
        _total.reset(token)


_total: ContextVar[Callable[[int], int]] = ContextVar("total", default=int)


def row_sums(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the sum over the tokens of each row, (n,), in the order of the rows' numbers.

    Args:
        values: One value per token, (T,).
        rows: The row of each token, (T,).

    Returns:
        One sum for each row that has a token.
    """
    numbers, places = torch.unique(rows, return_inverse=True)
    return values.new_zeros(len(numbers)).index_add(0, places, values)


def row_means(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the mean over the tokens of each row, (n,), in the order of the rows' numbers."""
    return row_sums(values, rows) / row_sums(torch.ones_like(values), rows)


def forget_losses(view: View) -> torch.Tensor:
    """Return the loss of each token that is to be forgotten, nats, (F,)."""
    forget = view.part == FORGET
    return cross_entropy(view.logits[forget], view.targets[forget])


def retained(view: View, kind: str) -> torch.Tensor:
    """Return the retain term: what training is held to on the rows to keep.

    Args:
        view: The batch.
        kind: `nll` for the answers' loss, `kl` for the divergence from the base model.

    Returns:
        A scalar, nats per token.
    """
    keep = view.part == RETAIN
    if kind == "kl":
        return mean(divergence(view.teacher[keep], view.logits[keep]))
    return mean(cross_entropy(view.logits[keep], view.targets[keep]))


def dense(logits: torch.Tensor | Scores | Expected) -> torch.Tensor:
    """Return logits as one tensor (T, V), float32, for an objective that changes single ones.

    Args:
        logits: Logits, or what stands for them.

    Returns:
        The logits.

    Raises:
        EulError: Of the teacher, only expected values are known.
    """
    if isinstance(logits, Expected):
        raise EulError("objective: expected logits of the teacher, found expected rows; set dense in its spec")
    return logits.dense() if isinstance(logits, Scores) else logits.float()


def log_ratios(view: View, part: int) -> torch.Tensor:
    """Return log p(y) / p_teacher(y) of each row of a part, (n,)."""
    chosen = view.part == part
    targets = view.targets[chosen]
    gaps = cross_entropy(view.teacher[chosen], targets) - cross_entropy(view.logits[chosen], targets)
    return row_sums(gaps, view.rows[chosen])
