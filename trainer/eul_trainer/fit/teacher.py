"""What the base model answers to every row, measured once before training and read in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from eul_serve.errors import EulError
from eul_trainer.fit.example_sets import ExampleSets
from eul_trainer.fit.schedule import Draw
from eul_trainer.forward.batches import by_length
from eul_trainer.forward.encoding import Example
from eul_trainer.forward.head import Expected
from eul_trainer.forward.row_store import MIB, RowStore
from eul_trainer.forward.runner import Runner
from eul_trainer.objectives.catalog import ObjectiveSpec

Head = Callable[[torch.Tensor], torch.Tensor]


class Teacher:
    """The base model's predictions at every answer token of the rows that an objective compares.

    Where the output head is frozen and the objective reads losses and divergences alone, what is kept of a token is its
    expected head row, its entropy and its loss (`eul_trainer.forward.head`), float32; no head is run for the teacher
    again. Otherwise its states before the head are kept, in the model's dtype, and the head is run on them in every
    step.
    """

    def __init__(
        self, runner: Runner, sets: ExampleSets, spec: ObjectiveSpec, drawn: Draw, *, lean: bool, memory: int
    ) -> None:
        """Run the base model.

        Args:
            runner: The base model and its batches.
            sets: The rows.
            spec: What the objective wants.
            drawn: The rows that the run will ask for.
            lean: Whether expected rows are kept, and not states.
            memory: Bound of what is held in memory, MiB.
        """
        self._lean = lean
        self._paired = spec.paired
        self._device = runner.model.device
        examples = [*sets.forget, *sets.retain, *(sets.refusal if spec.paired else [])]
        self._first = (0, len(sets.forget), len(sets.forget) + len(sets.retain))
        wanted = self._rows(drawn)
        self._known = frozenset(wanted)
        sizes = [0] * len(examples)
        for row in wanted:
            sizes[row] = len(examples[row].answer)
        width, dtype = runner.width, torch.float32 if lean else runner.network.dtype
        self._store = RowStore(sizes, width + 2 if lean else width, dtype, bound=memory * MIB)
        self._measure(runner, examples, wanted)

    def _rows(self, drawn: Draw) -> list[int]:
        """Return where the teacher's rows of a draw are in its store, in the order of a batch."""
        forget, retain, refusal = self._first
        rows = [forget + row for row in drawn.forget] + [retain + row for row in drawn.retain]
        return rows + ([refusal + row for row in drawn.refusal] if self._paired else [])

    @torch.no_grad()
    def _measure(self, runner: Runner, examples: Sequence[Example], wanted: Sequence[int], size: int = 16) -> None:
        for places in by_length([examples[row] for row in wanted], size):
            rows = [wanted[place] for place in places]
            batch = runner.batch([examples[row] for row in rows])
            hidden = runner.hidden(batch)
            kept = _columns(runner.expect(hidden, batch.targets)) if self._lean else hidden
            lengths = [len(examples[row].answer) for row in rows]
            for row, part in zip(rows, torch.split(kept, lengths), strict=True):
                self._store.put(row, part)

    def logits(self, chosen: Draw, count: int, head: Head) -> torch.Tensor | Expected:
        """Return the teacher's logits, or what stands for them, in the order of a step's batch.

        Args:
            chosen: The rows of the step.
            count: Answer tokens of its batch, T; those beyond the teacher's rows (refusal rows, unless the objective
                pairs them, and masked rows) are zero.
            head: The base model's output head, from states (T, d) to logits (T, V).

        Returns:
            Tensors of length T.

        Raises:
            EulError: A row is in none of the steps that the run was made for.
        """
        rows = self._rows(chosen)
        if not self._known.issuperset(rows):
            raise EulError("teacher: asked for rows that none of the run's steps draws; raise --steps")
        kept = self._store.get(rows).to(self._device)
        if not self._lean:
            with torch.no_grad():
                logits = head(kept).float()
            return torch.nn.functional.pad(logits, (0, 0, 0, count - len(logits)))
        kept = torch.nn.functional.pad(kept, (0, 0, 0, count - len(kept)))
        return Expected(means=kept[:, :-2], entropy=kept[:, -2], losses=kept[:, -1])


def _columns(found: Expected) -> torch.Tensor:
    return torch.cat([found.means, found.entropy[:, None], found.losses[:, None]], dim=1)
