"""One training run in memory: the model in training, its optimiser, and a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from eul_serve.errors import EulError
from eul_serve.format import Bundle
from eul_serve.peft import observe
from eul_trainer.fit.block_states import BlockStates
from eul_trainer.fit.example_sets import ExampleSets
from eul_trainer.fit.schedule import Draw, all_drawn, draw, rate
from eul_trainer.fit.stop import MEASURED_ROWS, probe_rows
from eul_trainer.fit.teacher import Teacher
from eul_trainer.forward.batches import Batch
from eul_trainer.forward.encoding import Example
from eul_trainer.forward.head import Scores
from eul_trainer.forward.losses import row_losses
from eul_trainer.forward.lower import LowerStates
from eul_trainer.forward.runner import Runner
from eul_trainer.model.adapter import Taps
from eul_trainer.model.depth import chosen_blocks
from eul_trainer.model.devices import SINGLE, Devices, gradients
from eul_trainer.model.load import LoadedModel
from eul_trainer.model.precision import cast
from eul_trainer.model.trainable import make_trainable
from eul_trainer.objectives.catalog import OBJECTIVES, make_objective
from eul_trainer.objectives.terms import counted_over
from eul_trainer.objectives.view import FORGET, IDLE, MASKED, REFUSAL, RETAIN, Losses, View
from eul_trainer.settings import FitSettings

CLIP = 1.0
"""Largest gradient norm."""


class Training:
    """The state of a run that is not in its curve: parameters and optimiser."""

    def __init__(
        self,
        model: LoadedModel,
        sets: ExampleSets,
        settings: FitSettings,
        *,
        devices: Devices = SINGLE,
        below: Sequence[Bundle] = (),
    ) -> None:
        self.settings = settings
        self.devices = devices
        self.sets = sets
        self.spec = OBJECTIVES[settings.objective]
        self.objective = make_objective(settings)
        cast(model.network, settings.dtype)
        self.runner = Runner(model, sets.all())
        # Before the model is changed, and before its head may train; the teacher reads the states below too.
        drawn = all_drawn(settings, len(sets.forget), len(sets.retain))
        self.runner.known = self._lower(drawn, below)
        lean = settings.trainable != "full" and self.runner.lean and not self.spec.dense
        self.teacher = Teacher(self.runner, sets, self.spec, drawn, lean=lean, memory=settings.cache_memory)
        self.blocks = BlockStates(self.runner, sets, self.objective.weights.depth) if self.spec.states else None
        self.trainable = make_trainable(model, settings, below)
        self.parameters = self.trainable.parameters
        self.runner.checkpointing = settings.checkpointing
        self._score = self.runner.scores if lean else self.runner.logits
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.learning_rate, betas=(0.9, self.spec.beta2), weight_decay=0.0
        )
        self.taps = Taps()

    def step(self, number: int, factor: float = 1.0) -> dict[str, float]:
        """Take one optimiser step and return its losses.

        Args:
            number: The step, from 0.
            factor: Factor on the scheduled learning rate.

        Returns:
            The losses by name.

        Raises:
            EulError: A loss or gradient is not finite.
        """
        chosen = self.devices.share(draw(self.settings, number, len(self.sets.forget), len(self.sets.retain)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.settings, number) * factor
        with counted_over(self.devices.total):
            losses = self._losses(chosen)
        self.optimizer.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        self.devices.add(gradients(self.parameters.values()))
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), CLIP))
        values = {"loss": losses.total.item(), **{name: part.item() for name, part in losses.parts.items()}}
        values = self.devices.add_values(values)
        if not all(math.isfinite(value) for value in (norm, *values.values())):
            raise EulError(_diverged(self.settings, number))
        self.optimizer.step()
        return values

    def _losses(self, chosen: Draw) -> Losses:
        rows, kinds = self._rows(chosen)
        batch = self.runner.batch(rows)
        self.taps.clear()
        with observe(self.trainable.network, self.taps), self.blocks.tapped() if self.blocks else nullcontext():
            logits = self._score(self.runner.hidden(batch))
        view = self._view(batch, kinds, chosen, logits)
        self.taps.clear()
        return self.objective(view)

    def _lower(self, drawn: Draw, below: Sequence[Bundle]) -> LowerStates | None:
        """Return the states below the lowest trained block, where nothing changes them."""
        model, settings = self.runner.model, self.settings
        if model.encoder_decoder or settings.trainable == "full" or below:
            return None
        first = chosen_blocks(settings.blocks, len(self.runner.blocks.blocks)).start
        rows = [*self.sets.forget, *(self.sets.retain[row] for row in drawn.retain), *self.sets.refusal]
        return LowerStates(self.runner, rows, first, memory=settings.cache_memory) if first else None

    def _rows(self, chosen: Draw) -> tuple[list[Example], torch.Tensor]:
        sets = self.sets
        parts = (
            (FORGET, sets.forget, chosen.forget),
            (RETAIN, sets.retain, chosen.retain),
            (REFUSAL, sets.refusal, chosen.refusal),
            (MASKED, sets.masked, chosen.masked if sets.masked else ()),
        )
        rows = [examples[row] for _, examples, drawn in parts for row in drawn]
        kinds = torch.tensor([kind for kind, _, drawn in parts for _ in drawn] or [IDLE])
        rows = rows or [sets.retain[0]]  # a process without a share steps with the others
        return rows, kinds.to(self.runner.model.device)

    def _view(self, batch: Batch, kinds: torch.Tensor, chosen: Draw, logits: torch.Tensor | Scores) -> View:
        return View(
            logits=logits,
            teacher=self.teacher.logits(chosen, len(batch.targets), self.trainable.teacher_head),
            targets=batch.targets,
            part=kinds[batch.rows],
            rows=batch.rows,
            outputs=self.taps.outputs(batch, kinds == RETAIN, first=self.devices.main),
            states=self.blocks.states(batch, chosen) if self.blocks else None,
            masked=bool(self.sets.masked),
        )

    def probe(self) -> float:
        """Return the mean answer loss of the measured forget rows, nats."""
        return self.mean_loss([self.sets.forget[row] for row in probe_rows(len(self.sets.forget))])

    def measure(self) -> float:
        """Return the same of more rows, for what is reported and scaled, nats."""
        return self.mean_loss([self.sets.forget[row] for row in probe_rows(len(self.sets.forget), MEASURED_ROWS)])

    def mean_loss(self, examples: Sequence[Example]) -> float:
        """Return the mean answer loss of examples, nats."""
        losses = row_losses(self.runner, examples)
        return self.devices.agree(sum(losses) / len(losses))  # all processes stop at the same step


def _diverged(settings: FitSettings, number: int) -> str:
    unbounded = settings.objective in ("paper", "graddiff", "ascent")
    known = "its forget terms have no bound; use --objective bounded, or" if unbounded else ""
    return (
        f"training diverged at step {number + 1}: a loss is not finite with objective {settings.objective!r}; "
        f"{known} lower --learning-rate (now {settings.learning_rate}); nothing was written"
    )
