"""A plain training loop, as one writes it with transformers and PEFT: the yardstick of a step's cost and of its result.

Rows padded to the longest of the batch, in the order they were drawn, with an attention mask; the teacher run in every
step, by switching the adapter off or as a second copy of the model; the output head over whole rows; answer positions
picked out before any softmax. It is a careful loop, and gives the same losses and gradients as the trainer's.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from eul_serve.peft import observe
from eul_trainer.fit.example_sets import ExampleSets
from eul_trainer.fit.schedule import Draw, draw, rate
from eul_trainer.fit.training import CLIP
from eul_trainer.forward.encoding import Example, shared_prefix
from eul_trainer.model.adapter import Taps
from eul_trainer.model.load import LoadedModel
from eul_trainer.model.precision import cast
from eul_trainer.model.trainable import make_trainable
from eul_trainer.objectives.catalog import OBJECTIVES, make_objective
from eul_trainer.objectives.view import FORGET, REFUSAL, RETAIN, Losses, View
from eul_trainer.settings import FitSettings

Drawn = list[tuple[int, Example]]


class PlainTraining:
    """The plain loop's state."""

    def __init__(self, model: LoadedModel, sets: ExampleSets, settings: FitSettings, *, copied: bool = False) -> None:
        """Put fresh layers on a model.

        Args:
            model: The base model, changed in place.
            sets: The rows.
            settings: The settings of a run.
            copied: Whether the teacher is a second copy of the model, and not the model with its adapter off.
        """
        cast(model.network, settings.dtype)
        self.settings, self.sets = settings, sets
        self.prefix = shared_prefix(sets.all())
        self.copy = copy.deepcopy(model.network) if copied else None
        self.trainable = make_trainable(model, settings)
        self.parameters = self.trainable.parameters
        self.objective = make_objective(settings)
        spec = OBJECTIVES[settings.objective]
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.learning_rate, betas=(0.9, spec.beta2), weight_decay=0.0
        )

    def step(self, number: int) -> dict[str, float]:
        """Take a step and return its losses."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.settings, number)
        losses = self.losses(draw(self.settings, number, len(self.sets.forget), len(self.sets.retain)))
        self.optimizer.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), CLIP)
        self.optimizer.step()
        return {"loss": losses.total.item(), **{name: part.item() for name, part in losses.parts.items()}}

    def losses(self, chosen: Draw) -> Losses:
        """Return the losses of drawn rows."""
        sets = self.sets
        drawn = [(FORGET, sets.forget[row]) for row in chosen.forget]
        drawn += [(RETAIN, sets.retain[row]) for row in chosen.retain]
        drawn += [(REFUSAL, sets.refusal[row]) for row in chosen.refusal]
        batch = padded([example for _, example in drawn])
        with torch.no_grad(), self._teacher_on():
            teacher = self._answers(self.copy or self.trainable.network, batch, drawn)
        taps = Taps()
        with observe(self.trainable.network, taps) if self.trainable.kind == "layer" else nullcontext():
            logits = self._answers(self.trainable.network, batch, drawn)
        rows = torch.cat([torch.full((len(example.answer),), row) for row, (_, example) in enumerate(drawn)])
        view = View(
            logits=logits,
            teacher=teacher,
            targets=torch.tensor([token for _, example in drawn for token in example.answer]),
            part=torch.tensor([kind for kind, _ in drawn])[rows],
            rows=rows,
            outputs=[(self._retained(y, drawn), self._retained(delta, drawn)) for _, y, _, delta in taps.seen],
        )
        return self.objective(view)

    def _teacher_on(self) -> AbstractContextManager[None]:
        return nullcontext() if self.copy else self.trainable.off()

    def _answers(self, network: Any, batch: dict[str, torch.Tensor], drawn: Drawn) -> torch.Tensor:
        logits = network(**batch, use_cache=False).logits
        parts = [
            logits[row, len(example.prompt) - 1 : len(example.prompt) + len(example.answer) - 1]
            for row, (_, example) in enumerate(drawn)
        ]
        return torch.cat(parts).float()

    def _retained(self, states: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Return every token of the rows to keep; the first ones that all rows share are counted once."""
        parts = [
            states[row, self.prefix : len(example.prompt) + len(example.answer) - 1]
            for row, (kind, example) in enumerate(drawn)
            if kind == RETAIN
        ]
        return torch.cat([*parts, states[0, : self.prefix]])


def padded(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Return rows padded on the right, and their mask."""
    rows = [[*example.prompt, *example.answer] for example in examples]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}
