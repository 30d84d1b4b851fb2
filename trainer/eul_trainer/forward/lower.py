"""States below the lowest trained block: the same in every step, so they are computed once per row."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_trainer.forward.batches import Batch, by_length
from eul_trainer.forward.encoding import Example
from eul_trainer.forward.row_store import MIB, RowStore
from eul_trainer.forward.runner import Runner


class LowerStates:
    """What the lowest trained block reads of every row, in the model's dtype."""

    def __init__(self, runner: Runner, examples: Sequence[Example], first: int, *, memory: int) -> None:
        """Run the blocks below.

        Args:
            runner: The model, which is not asked for these states yet.
            examples: The rows of the run.
            first: The lowest trained block.
            memory: Bound of what is held in memory, MiB.
        """
        self.first = first
        self._numbers = {example: number for number, example in enumerate(dict.fromkeys(examples))}
        kept = list(self._numbers)
        sizes = [example.length - 1 - runner.prefix for example in kept]
        self._store = RowStore(sizes, runner.width, runner.network.dtype, bound=memory * MIB)
        self._shared = torch.empty(0)
        self._measure(runner, kept)

    @torch.no_grad()
    def _measure(self, runner: Runner, examples: Sequence[Example], size: int = 16) -> None:
        for indices in by_length(examples, size):
            batch = runner.batch([examples[index] for index in indices])
            states = runner.lower(batch, self.first)[0]
            self._shared = states[batch.tokens.first]
            for row, index in enumerate(indices):
                self._store.put(index, states[batch.tokens.index[batch.tokens.rows == row]])

    def states(self, batch: Batch) -> torch.Tensor | None:
        """Return what the lowest trained block reads, (1, N, d), or None where a row is not one of the run's."""
        numbers = [self._numbers.get(example, -1) for example in batch.examples]
        if min(numbers) < 0 or batch.packing is None:
            return None
        kept = self._store.get(numbers).to(batch.positions.device)
        states = kept.new_empty(len(batch.packing.ids), kept.shape[1])
        states[batch.tokens.index] = kept
        states[batch.tokens.first] = self._shared
        return states[None]
