"""Every method of the tables by name: a function that makes a model to measure out of one cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eul_trainer.baselines.methods import Split, run_method
from eul_trainer.baselines.methods import default_settings as baseline_settings
from eul_trainer.fit import fit
from eul_trainer.model import LoadedModel, load_model
from eul_trainer.settings import FitSettings, default_settings, override
from eul_trainer.teaching.run import teach
from tables.case import Case
from tables.scale import Scale

ORIGINAL, RETRAIN = "original", "retrain"
LORA_RATE, FULL_RATE = 1e-3, 2e-5
"""Learning rates of LoRA and of all weights; a layer has its objective's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a method is given."""

    case: Case
    """The rows."""
    scale: Scale
    """The scale."""
    seed: int
    """Seed of the order of the rows."""
    base: str
    """Directory of the model before teaching."""
    original: Path
    """Directory of the taught model."""
    target: float
    """Loss of unseen rows of the same kind on the taught model, nats: where a run that can stop, stops."""
    device: str = "cpu"
    """Where to compute."""

    @property
    def split(self) -> Split:
        """The rows as the baselines take them."""
        return Split(forget=self.case.forget, retain=self.case.retain)


Method = Callable[[Cell], LoadedModel]


def original(cell: Cell) -> LoadedModel:
    """Return the taught model as it is."""
    return load_model(str(cell.original), cell.device)


def retrain(cell: Cell) -> LoadedModel:
    """Return a model taught as the original was, without the rows to forget."""
    model = load_model(cell.base, cell.device)
    teach(model, cell.case.twin, replace(cell.scale.teach, seed=cell.seed))
    return model


def finetune(cell: Cell) -> LoadedModel:
    """Return the original after more passes over the retained rows."""
    model = original(cell)
    settings = replace(baseline_settings("finetune"), epochs=cell.scale.tune_epochs, seed=cell.seed)
    run_method("finetune", model, cell.split, replace(settings, batch_size=cell.scale.teach.batch_size))
    return model


def reverse_gradient(cell: Cell) -> LoadedModel:
    """Return the original after passes over all rows with the gradient of the forgotten ones reversed."""
    model = original(cell)
    settings = replace(baseline_settings("revgrad"), epochs=cell.scale.tune_epochs, seed=cell.seed)
    run_method("revgrad", model, cell.split, replace(settings, batch_size=cell.scale.teach.batch_size))
    return model


def unlearn(objective: str, given: Mapping[str, Any] | None = None) -> Method:
    """Return a method that trains with an objective, a layer unless told otherwise.

    Args:
        objective: Name of the objective.
        given: Settings that differ from the objective's own and from the scale's.

    Returns:
        The method.
    """

    def run(cell: Cell) -> LoadedModel:
        model = original(cell)
        fit(model, cell.case.forget, cell.case.retain, fit_settings(objective, cell, given or {}))
        return model  # the trained parameters are on it

    return run


def fit_settings(objective: str, cell: Cell, given: Mapping[str, Any]) -> FitSettings:
    """Return an unlearning run's settings: the objective's own, then the scale's, then what is given."""
    low, high = band(cell.target)
    chosen: dict[str, Any] = {**cell.scale.fit, "target_low": low, "target_high": high, "statistics": "none"}
    if cell.case.task != "tofu" and objective == "bounded":
        chosen["refusal"] = ""  # "I don't have any information" answers neither a review nor a dialogue
    return override(default_settings(objective), {**chosen, "seed": cell.seed, **given})


def band(target: float) -> tuple[float, float]:
    """Return the two-sided target around a loss: a quarter of a nat, less where the loss itself is small."""
    width = max(0.05, min(0.25, target / 4))
    return max(0.01, target - width), target + width


METHODS: dict[str, Method] = {
    ORIGINAL: original,
    RETRAIN: retrain,
    "fine-tune": finetune,
    "reverse gradient": reverse_gradient,
    "EUL, as printed": unlearn("paper"),
    "EUL, rate 1e-3": unlearn("paper", {"learning_rate": 1e-3}),
    "EUL, bounded": unlearn("bounded"),
    "NPO": unlearn("npo"),
    "SimNPO": unlearn("simnpo"),
    "GradDiff": unlearn("graddiff"),
    "gradient ascent": unlearn("ascent"),
    "DPO to a refusal": unlearn("dpo"),
    "RMU": unlearn("rmu"),
    "UNDIAL": unlearn("undial"),
    "EUL, bounded, LoRA": unlearn("bounded", {"trainable": "lora", "learning_rate": LORA_RATE, "settle": 0.0}),
    "NPO, LoRA": unlearn("npo", {"trainable": "lora", "learning_rate": LORA_RATE, "settle": 0.0}),
    "NPO, all weights": unlearn("npo", {"trainable": "full", "learning_rate": FULL_RATE, "settle": 0.0}),
    "GradDiff, all weights": unlearn("graddiff", {"trainable": "full", "learning_rate": FULL_RATE, "settle": 0.0}),
}
"""Methods in the order of the table. MEND is left out: see docs/benchmarks/README.md."""
