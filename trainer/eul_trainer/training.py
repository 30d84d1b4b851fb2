"""One training run in memory: the model with fresh layers, its optimiser, and a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from eul_serve.errors import EulError
from eul_serve.format import BundleConfig
from eul_serve.peft import observe
from eul_trainer.adapter import Taps, fresh_layers
from eul_trainer.encoding import Example
from eul_trainer.forward import Runner
from eul_trainer.losses import row_losses
from eul_trainer.model import LoadedModel
from eul_trainer.objectives.bounded import BoundedWeights, bounded_loss
from eul_trainer.objectives.paper import PaperWeights, paper_loss
from eul_trainer.objectives.view import FORGET, REFUSAL, RETAIN, Losses, View
from eul_trainer.schedule import Draw, draw, rate
from eul_trainer.settings import FitSettings
from eul_trainer.stop import probe_rows

CLIP = 1.0
"""Largest gradient norm."""
HINGE_BELOW, HINGE_ABOVE = 0.5, 1.5
"""How far the hinge's ends lie outside of the target band, nats."""


class Training:
    """The state of a run that is not in its curve: parameters and optimiser."""

    def __init__(
        self,
        model: LoadedModel,
        sets: tuple[Sequence[Example], Sequence[Example], Sequence[Example]],
        settings: FitSettings,
    ) -> None:
        self.settings = settings
        self.forget, self.retain, self.refusal = sets
        self.runner = Runner(model, [*self.forget, *self.retain, *self.refusal])
        self.teacher = self._teacher()
        config = BundleConfig(
            rank=settings.rank,
            base_fingerprint=model.base.fingerprint,
            target_modules=model.targets,
            activation=settings.activation,
            task_type="SEQ_2_SEQ_LM" if model.encoder_decoder else "CAUSAL_LM",
        )
        self.config = config
        self.peft = fresh_layers(model, config, settings.init_seed)
        self.parameters: dict[str, torch.nn.Parameter] = {
            name: parameter for name, parameter in self.peft.named_parameters() if parameter.requires_grad
        }
        betas = (0.9, 0.99) if settings.objective == "bounded" else (0.9, 0.999)
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.learning_rate, betas=betas, weight_decay=0.0
        )
        self.taps = Taps()

    @torch.no_grad()
    def _teacher(self) -> dict[int, list[torch.Tensor]]:
        # States before the output head, not logits: the head is frozen, and a state is a hundredth of its logits.
        return {part: states(self.runner, rows) for part, rows in ((FORGET, self.forget), (RETAIN, self.retain))}

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
        chosen = draw(self.settings, number, len(self.forget), len(self.retain))
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.settings, number) * factor
        losses = self._losses(chosen)
        self.optimizer.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), CLIP))
        values = {"loss": losses.total.item(), **{name: part.item() for name, part in losses.parts.items()}}
        if not all(math.isfinite(value) for value in (norm, *values.values())):
            raise EulError(_diverged(self.settings, number))
        self.optimizer.step()
        return values

    def _losses(self, chosen: Draw) -> Losses:
        rows = [self.forget[row] for row in chosen.forget] + [self.retain[row] for row in chosen.retain]
        rows += [self.refusal[row] for row in chosen.refusal]
        kinds = torch.tensor(
            [FORGET] * len(chosen.forget) + [RETAIN] * len(chosen.retain) + [REFUSAL] * len(chosen.refusal)
        ).to(self.runner.model.device)
        batch = self.runner.batch(rows)
        self.taps.clear()
        with observe(self.peft, self.taps):
            logits = self.runner.logits(self.runner.hidden(batch))
        view = View(
            logits=logits,
            teacher=self._teacher_logits(chosen, len(logits)),
            targets=batch.targets,
            part=kinds[batch.rows],
            outputs=self.taps.outputs(batch, kinds == RETAIN),
        )
        self.taps.clear()
        if self.settings.objective == "paper":
            return paper_loss(view, PaperWeights())
        low, high = self.settings.target_low - HINGE_BELOW, self.settings.target_high + HINGE_ABOVE
        return bounded_loss(view, BoundedWeights(low=low, high=high))

    @torch.no_grad()
    def _teacher_logits(self, chosen: Draw, count: int) -> torch.Tensor:
        kept = [self.teacher[FORGET][row] for row in chosen.forget]
        kept += [self.teacher[RETAIN][row] for row in chosen.retain]
        logits = self.runner.logits(torch.cat(kept))
        return torch.nn.functional.pad(logits, (0, 0, 0, count - len(logits)))

    def probe(self) -> float:
        """Return the mean answer loss on a few rows of the forget set, nats."""
        rows = [self.forget[row] for row in probe_rows(len(self.forget))]
        losses = row_losses(self.runner, rows)
        return sum(losses) / len(losses)


@torch.no_grad()
def states(runner: Runner, examples: Sequence[Example], size: int = 16) -> list[torch.Tensor]:
    """Return what the output head reads for each example's answer, (answer tokens, d) each."""
    found: list[torch.Tensor] = []
    for first in range(0, len(examples), size):
        part = examples[first : first + size]
        hidden = runner.hidden(runner.batch(part))
        found += torch.split(hidden, [len(example.answer) for example in part])
    return found


def _diverged(settings: FitSettings, number: int) -> str:
    known = "its forget terms have no bound; use --objective bounded, or" if settings.objective == "paper" else ""
    return (
        f"training diverged at step {number + 1}: a loss is not finite with objective {settings.objective!r}; "
        f"{known} lower --learning-rate (now {settings.learning_rate}); nothing was written"
    )
