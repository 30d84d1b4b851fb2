"""What an objective sees of one training step, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from eul_trainer.forward.head import Expected, Scores

FORGET, RETAIN, REFUSAL, MASKED, IDLE = range(5)
"""Parts of a batch: rows to forget, rows to keep, forgotten questions with a refusal as their answer, forgotten texts
whose missing words are the answer, and a row that counts for nothing, run by a process that has no share of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """What one transformer block gives out at the positions that predict the answer tokens."""

    student: torch.Tensor  # (T, d) with the trained weights
    teacher: torch.Tensor  # (T, d) with those of the base model; rows of REFUSAL and MASKED are not read


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The answer tokens of one batch, T in all, and the layers' outputs on retained tokens."""

    logits: torch.Tensor | Scores  # (T, V) with the trained weights, float32, or what stands for them in losses
    teacher: (
        torch.Tensor | Expected
    )  # of the base model; those of REFUSAL are there for objectives that pair rows alone
    targets: torch.Tensor  # (T,)
    part: torch.Tensor  # (T,) FORGET, RETAIN, REFUSAL or MASKED
    rows: torch.Tensor  # (T,) row of the batch that each token belongs to
    outputs: Sequence[tuple[torch.Tensor, torch.Tensor]] = ()  # per block (input y, layer output), each (tokens, d)
    states: States | None = None  # for objectives that ask for them
    masked: bool = False  # whether masked words stand for the language-modelling term; their rows may be in other steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The loss to descend on, and its parts by name for progress and the loss curve."""

    total: torch.Tensor  # ()
    parts: dict[str, torch.Tensor]  # name -> ()
