"""Answer losses straight from the states before a frozen output head: no (T, V) tensor of logits is ever whole.

With logits z = W h, all that the losses need of a token's V logits is its log-sum-exp, whose gradient is W' softmax(z):

    cross-entropy(target)   = lse(h) - h . W[target]
    KL(teacher || student)  = lse(h) - h . m - entropy      m = W' p, p = softmax of the teacher's logits

m (d numbers) and the teacher's entropy are fixed, so they are computed once per token and stand for its V logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Context: TypeAlias = Any
"""What torch hands from the way forward to the way back: it has no type for it."""
CHUNK = 128
"""Tokens whose logits are held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Tokens before the output head, standing for their logits: what objectives are given of the student."""

    states: torch.Tensor  # (T, d) what the head reads, float32
    weight: torch.Tensor  # (V, d) the head, float32, frozen
    spread: torch.Tensor  # (T,) log-sum-exp of the logits

    def __getitem__(self, rows: torch.Tensor) -> Scores:
        return Scores(states=self.states[rows], weight=self.weight, spread=self.spread[rows])

    def cross_entropy(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each token, (T,), nats."""
        return self.spread - (self.states * self.weight[targets]).sum(-1)

    def dense(self) -> torch.Tensor:
        """Return the logits, (T, V)."""
        return self.states @ self.weight.T


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A teacher's predictions: what objectives are given of it."""

    means: torch.Tensor  # (T, d) W' p, float32
    entropy: torch.Tensor  # (T,) nats
    losses: torch.Tensor  # (T,) its loss on the targets that it was made for, nats

    def __getitem__(self, rows: torch.Tensor) -> Expected:
        return Expected(means=self.means[rows], entropy=self.entropy[rows], losses=self.losses[rows])

    def divergence(self, student: Scores) -> torch.Tensor:
        """Return KL(teacher || student) of each token, (T,), nats."""
        return student.spread - (student.states * self.means).sum(-1) - self.entropy


def score(states: torch.Tensor, weight: torch.Tensor) -> Scores:
    """Return the scores of tokens, differentiable in `states` (T, d)."""
    wide = states.float()
    spread: torch.Tensor = _LogSumExp.apply(wide, weight)  # type: ignore[no-untyped-call]  # torch has no type for it
    return Scores(states=wide, weight=weight, spread=spread)


@torch.no_grad()
def expect(states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> Expected:
    """Return what a teacher predicts, from its states (T, d)."""
    wide = states.float()
    spread, means = _log_sum_exp(wide, weight, means=True)
    losses = spread - (wide * weight[targets]).sum(-1)
    return Expected(means=means, entropy=spread - (wide * means).sum(-1), losses=losses)


class _LogSumExp(torch.autograd.Function):
    """Log-sum-exp of `states @ weight.T`, whose gradient is found on the way forward, chunk by chunk."""

    @staticmethod
    def forward(ctx: Context, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        spread, means = _log_sum_exp(states, weight, means=ctx.needs_input_grad[0])
        ctx.save_for_backward(means)
        return spread

    @staticmethod
    def backward(ctx: Context, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0][:, None] * ctx.saved_tensors[0], None


def _log_sum_exp(states: torch.Tensor, weight: torch.Tensor, *, means: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-sum-exp, (T,), and the mean row of the head under the softmax, (T, d), if asked."""
    spread, mean = states.new_empty(len(states)), torch.empty_like(states) if means else states.new_empty(0)
    room = states.new_empty(min(CHUNK, len(states)), len(weight))
    for first in range(0, len(states), CHUNK):
        part = states[first : first + CHUNK]
        logits = torch.mm(part, weight.T, out=room[: len(part)])
        top = logits.amax(-1, keepdim=True)
        total = logits.sub_(top).exp_().sum(-1, keepdim=True)
        spread[first : first + CHUNK] = (top + total.log())[:, 0]
        if means:
            mean[first : first + CHUNK] = (logits @ weight).div_(total)
    return spread, mean
