"""What an objective sees of one training step, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

FORGET, RETAIN, REFUSAL = 0, 1, 2
"""Parts of a batch: rows to forget, rows to keep, and forgotten questions with a refusal as their answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The answer tokens of one batch, T in all, and the layers' outputs on retained tokens."""

    logits: torch.Tensor  # (T, V) with the layers on, float32
    teacher: torch.Tensor  # (T, V) with the layers off; rows of REFUSAL are not read
    targets: torch.Tensor  # (T,)
    part: torch.Tensor  # (T,) FORGET, RETAIN or REFUSAL
    outputs: Sequence[tuple[torch.Tensor, torch.Tensor]]  # per block (input y, layer output), each (tokens, d)


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The loss to descend on, and its parts by name for progress and the loss curve."""

    total: torch.Tensor  # ()
    parts: dict[str, torch.Tensor]  # name -> ()
