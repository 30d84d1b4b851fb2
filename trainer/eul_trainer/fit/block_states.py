"""What one transformer block gives out at answer positions, for objectives that steer it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from eul_serve.errors import InputError
from eul_trainer.fit.example_sets import ExampleSets
from eul_trainer.fit.schedule import Draw
from eul_trainer.forward.batches import Batch
from eul_trainer.forward.encoding import Example
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import Network
from eul_trainer.objectives.view import States

_BLOCK = re.compile(r"(?!encoder\.)[a-z_.]+\.\d+")
"""Paths of blocks: members of a list that is in no other list; `encoder.` has blocks that see no answer."""


class BlockStates:
    """Outputs of one block: those of the base model, measured once, and those of a step."""

    def __init__(self, runner: Runner, sets: ExampleSets, depth: float) -> None:
        self._block = block_at(runner.network, depth)
        self._seen: list[torch.Tensor] = []
        self._forget = self._measure(runner, sets.forget)
        self._retain = self._measure(runner, sets.retain)

    @contextmanager
    def tapped(self) -> Iterator[None]:
        """Keep what the block gives out while the context lasts; only the last pass counts.

        Yields:
            Nothing.
        """
        self._seen.clear()
        hook = self._block.register_forward_hook(self._see)
        try:
            yield
        finally:
            hook.remove()

    def _see(self, module: torch.nn.Module, inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        self._seen[:] = [output if isinstance(output, torch.Tensor) else output[0]]

    def states(self, batch: Batch, chosen: Draw) -> States:
        """Return the block's outputs in the step that was tapped, beside those of the base model.

        Args:
            batch: The batch that was run.
            chosen: The rows in it.

        Returns:
            Student and teacher, (T, d) each; the teacher's are zero on rows that it was not measured on.
        """
        student = self._at(batch)
        kept = [self._forget[row] for row in chosen.forget] + [self._retain[row] for row in chosen.retain]
        teacher = torch.cat(kept)
        return States(student=student, teacher=torch.nn.functional.pad(teacher, (0, 0, 0, len(student) - len(teacher))))

    def _at(self, batch: Batch) -> torch.Tensor:
        if not self._seen:
            raise InputError("objective 'rmu': the steered block is below all trained ones; raise --weight depth")
        (output,) = self._seen
        return output.reshape(-1, output.shape[-1])[batch.positions].float()

    @torch.no_grad()
    def _measure(self, runner: Runner, examples: Sequence[Example], size: int = 16) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        for first in range(0, len(examples), size):
            part = examples[first : first + size]
            batch = runner.batch(part)
            with self.tapped():
                runner.hidden(batch)
            found += torch.split(self._at(batch), [len(example.answer) for example in part])
        return found


def block_at(network: Network, depth: float) -> torch.nn.Module:
    """Return the transformer block at a share of the model's depth; a decoder's where there is an encoder too.

    Args:
        network: A transformers model.
        depth: From 0 for the first block up to 1, which like all above stands for the last.

    Returns:
        The module.
    """
    blocks: list[torch.nn.Module] = [module for path, module in network.named_modules() if _BLOCK.fullmatch(path)]
    return blocks[min(int(depth * len(blocks)), len(blocks) - 1)]
