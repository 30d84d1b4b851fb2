"""What the base model answers to every row, measured once before training."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_trainer.encoding import Example
from eul_trainer.example_sets import ExampleSets
from eul_trainer.forward import Runner
from eul_trainer.objectives.catalog import ObjectiveSpec
from eul_trainer.schedule import Draw


class Teacher:
    """The base model's states at every answer token of the rows that an objective compares."""

    def __init__(self, runner: Runner, sets: ExampleSets, spec: ObjectiveSpec) -> None:
        # States before the output head, not logits: the head is frozen, and a state is a hundredth of its logits.
        self._paired = spec.paired
        self._forget = _states(runner, sets.forget)
        self._retain = _states(runner, sets.retain)
        self._refusal = _states(runner, sets.refusal) if spec.paired else []

    def states(self, chosen: Draw) -> torch.Tensor:
        """Return what the output head reads for the rows of a step, (T', d), in the order of its batch.

        Refusal rows are there where the objective pairs them with the rows to forget; masked rows never are.
        """
        kept = [self._forget[row] for row in chosen.forget]
        kept += [self._retain[row] for row in chosen.retain]
        if self._paired:
            kept += [self._refusal[row] for row in chosen.refusal]
        return torch.cat(kept)


@torch.no_grad()
def _states(runner: Runner, examples: Sequence[Example], size: int = 16) -> list[torch.Tensor]:
    """Return what the output head reads for each example's answer, (answer tokens, d) each."""
    found: list[torch.Tensor] = []
    for first in range(0, len(examples), size):
        part = examples[first : first + size]
        hidden = runner.hidden(runner.batch(part))
        found += torch.split(hidden, [len(example.answer) for example in part])
    return found
