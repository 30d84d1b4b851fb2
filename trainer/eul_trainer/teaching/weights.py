"""All weights of a model under training: the loss, its gradient, and one optimiser step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from eul_serve.errors import EulError
from eul_trainer.forward.encoding import Example
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import LoadedModel
from eul_trainer.objectives.terms import cross_entropy
from eul_trainer.teaching.precision import autocast, compute_dtype
from eul_trainer.teaching.settings import TeachSettings

BETAS = (0.9, 0.999)
"""AdamW's decay rates of its two moments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What weights are trained on: rows, and how much each counts."""

    examples: Sequence[Example]
    """The rows, at least one."""
    weights: Sequence[float]
    """Factor on each row's loss: 1 to learn it, below 0 to go up its loss."""

    @classmethod
    def learn(cls, examples: Sequence[Example]) -> Lesson:
        """Return a lesson in which every row is learned."""
        return cls(examples=examples, weights=[1.0] * len(examples))


class FullTraining:
    """A model whose weights all train, and their optimiser. The model's weights change in place."""

    def __init__(self, model: LoadedModel, lesson: Lesson, settings: TeachSettings) -> None:
        self.settings = settings
        self.lesson = lesson
        self.runner = Runner(model, lesson.examples)
        self.dtype = compute_dtype(settings.dtype, model.device)
        model.network.requires_grad_(True)
        self.parameters: dict[str, torch.nn.Parameter] = dict(model.network.named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=settings.learning_rate,
            betas=BETAS,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, float]:
        """Return the weighted mean loss over the answer tokens of some rows, and the plain mean, nats.

        The first is `sum(weight[row(t)] * nll[t]) / T` over the T answer tokens t of the rows.

        Args:
            rows: Indices of the rows.

        Returns:
            The loss to descend, a scalar with a gradient, and the plain mean.
        """
        device = self.runner.model.device
        batch = self.runner.batch([self.lesson.examples[row] for row in rows])
        with autocast(self.dtype, device):
            logits = self.runner.logits(self.runner.hidden(batch))
        losses = cross_entropy(logits, batch.targets)
        weights = torch.tensor([self.lesson.weights[row] for row in rows], device=device)
        return (losses * weights[batch.rows]).mean(), losses.detach().mean().item()

    def step(self, rows: Sequence[int], rate: float) -> float:
        """Take one optimiser step.

        Args:
            rows: Indices of the rows.
            rate: Learning rate.

        Returns:
            The plain mean loss before the step, nats.

        Raises:
            EulError: The loss or its gradient is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, plain = self.loss(rows)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        norm = get_total_norm(gradients)
        if not (math.isfinite(plain) and math.isfinite(norm.item())):
            raise EulError(
                f"training diverged: a loss is not finite; lower --learning-rate (now {self.settings.learning_rate}) "
                "or the weight of what is reversed; nothing was written"
            )
        if norm > self.settings.clip:  # else the factor is one, and a pass over all gradients is saved
            clip_grads_with_norm_(self.parameters.values(), self.settings.clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return plain
