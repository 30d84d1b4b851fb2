"""What a later fusion needs of a layer: second moments of its hidden units and of its inputs on forgotten answers.

A Gram of few tokens nearly shows them. So it is stored in diagonal blocks, as wide as the number of tokens allows:
every block has at least TOKENS_PER_COLUMN tokens per column. Below MIN_TOKENS nothing is stored. Of the inputs each
number's mean and variance are stored; their second moments and gates, which most fusions do not read, only when asked
for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from eul_trainer.forward.encoding import Example
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import Network
from eul_trainer.moments.gating import gate_of
from eul_trainer.moments.gram import Gram, LowRankGram, PackedGram
from eul_trainer.moments.measured import Measured, second_moments

TOKENS_PER_COLUMN = 4
"""Fewest tokens per column of a stored block."""
MIN_TOKENS = 64
"""Tokens below which no Gram is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """What is stored of one layer."""

    units: torch.Tensor  # (r, r) of act(D y + b); zero outside of diagonal blocks
    gate: torch.Tensor | None = None  # (d + 1,) of gating.py
    mean: torch.Tensor | None = None  # (d,) of the layer's input
    variance: torch.Tensor | None = None  # (d,) of each of its numbers
    inputs: Gram | None = None  # (d + 1, d + 1) of the layer's input with a 1 appended; diagonal blocks of it


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStatistics:
    """The moments of every layer."""

    tokens: int
    """Answer tokens that they are means over."""
    moments: Mapping[str, Moments]
    """By module path; empty where none are stored."""
    error: float | None = None
    """Largest relative error of a low-rank Gram, in the Frobenius norm; None where all are exact."""


def layer_statistics(
    runner: Runner,
    peft: Network,
    examples: Sequence[Example],
    retain: Mapping[str, Measured],
    keep: str = "units",
    rank: int = 0,
) -> LayerStatistics:
    """Measure what is stored of a layer, with the layers on.

    Args:
        runner: The model and its batches.
        peft: The PEFT model whose layers are observed.
        examples: The forgotten rows.
        retain: What was measured on retained rows, on the base model, by module path; read for `full`.
        keep: What to store: units, full or none.
        rank: Eigenvectors kept of a Gram of inputs; 0 keeps it exactly.

    Returns:
        The moments, in blocks as wide as the number of tokens allows.
    """
    tokens = sum(len(example.answer) for example in examples)
    if tokens < MIN_TOKENS or keep == "none":
        return LayerStatistics(tokens=tokens, moments={})
    width, errors = block_width(tokens), []
    moments = {}
    for module, found in second_moments(runner, peft, examples, inputs=keep == "full", spread=True).items():
        moments[module] = Moments(units=block_diagonal(found.units, width), mean=found.mean, variance=found.variance)
        if keep == "units":
            continue
        inputs: Gram = PackedGram.of(found.inputs, width)
        if rank:
            exact, inputs = inputs.dense(), LowRankGram.of(inputs.dense(), rank)
            errors.append(inputs.error(exact))
        gate = gate_of(found.inputs, retain[module].inputs)
        moments[module] = replace(moments[module], gate=gate, inputs=inputs)
    return LayerStatistics(tokens=tokens, moments=moments, error=max(errors) if errors else None)


def block_width(tokens: int) -> int:
    """Return how wide a stored diagonal block may be."""
    return max(1, tokens // TOKENS_PER_COLUMN)


def block_diagonal(gram: torch.Tensor, width: int) -> torch.Tensor:
    """Return a square matrix with everything outside of diagonal blocks of a width set to zero."""
    block = torch.arange(len(gram), device=gram.device) // width
    return gram * (block[:, None] == block[None, :])
