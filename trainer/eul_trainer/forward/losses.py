"""Answer losses of rows: mean cross-entropy over a row's answer tokens, in nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from eul_trainer.forward.batches import by_length
from eul_trainer.forward.encoding import Example
from eul_trainer.forward.runner import Runner
from eul_trainer.objectives.terms import cross_entropy, row_means


@dataclass(frozen=True, slots=True, kw_only=True)
class RowScore:
    """How a model answers one row under teacher forcing."""

    loss: float
    """Mean cross-entropy over the answer's tokens, nats."""
    accuracy: float
    """Share of the answer's tokens that are the model's first choice, 0 to 1."""


@torch.no_grad()
def row_scores(runner: Runner, examples: Sequence[Example], size: int = 24) -> list[RowScore]:
    """Score rows in batches of about equal length.

    Args:
        runner: The model and its batches.
        examples: The rows.
        size: Rows per batch.

    Returns:
        One score per row, in the order of the rows.
    """
    scores: dict[int, RowScore] = {}
    for indices in by_length(examples, size):
        batch = runner.batch([examples[index] for index in indices])
        logits = runner.logits(runner.hidden(batch))
        losses = cross_entropy(logits, batch.targets)
        hits = (logits.argmax(-1) == batch.targets).float()
        for row, index in enumerate(indices):
            mine = batch.rows == row
            scores[index] = RowScore(loss=losses[mine].mean().item(), accuracy=hits[mine].mean().item())
    return [scores[index] for index in range(len(examples))]


def row_losses(runner: Runner, examples: Sequence[Example]) -> list[float]:
    """Return the answer loss of each row, nats."""
    losses: dict[int, float] = {}
    with torch.no_grad():
        for indices in by_length(examples, 24):
            batch = runner.batch([examples[index] for index in indices])
            tokens = cross_entropy(runner.scores(runner.hidden(batch)), batch.targets)
            means = row_means(tokens, batch.rows).tolist()
            losses |= dict(zip(indices, means, strict=True))
    return [losses[index] for index in range(len(examples))]
