"""Every method of the tables by name: a function that makes a model to measure out of one cell."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eul_trainer.baselines.evaluated import Ensemble, Evaluated, WholeModel
from eul_trainer.baselines.mend.run import mend
from eul_trainer.baselines.mend.settings import MendSettings
from eul_trainer.baselines.methods import Split, run_method
from eul_trainer.baselines.methods import default_settings as baseline_settings
from eul_trainer.baselines.sisa.ensemble import open_ensemble
from eul_trainer.baselines.sisa.run import complete, start
from eul_trainer.baselines.sisa.settings import SisaSettings
from eul_trainer.baselines.sisa.state import save_state
from eul_trainer.fit.run import fit
from eul_trainer.model.load import LoadedModel, load_model
from eul_trainer.settings import FitSettings, default_settings, override
from eul_trainer.teaching.run import teach
from tables.case import Case
from tables.scale import Scale


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


Outcome = tuple[Evaluated, float]
"""A system to measure, and the seconds that honouring the request took, loading left out."""
Method = Callable[[Cell], Outcome]


def original(cell: Cell) -> Outcome:
    """Return the taught model as it is."""
    return WholeModel(_taught(cell)), 0.0


def retrain(cell: Cell) -> Outcome:
    """Return a model taught as the original was, without the rows to forget."""
    model = load_model(cell.base, cell.device)
    course = teach(model, cell.case.twin, replace(cell.scale.teach, seed=cell.seed))
    return WholeModel(model), course.seconds


def tune(method: str) -> Method:
    """Return one of the baselines that go on from the taught model: finetune or revgrad."""

    def run(cell: Cell) -> Outcome:
        model = _taught(cell)
        settings = replace(baseline_settings(method), epochs=cell.scale.tune_epochs, seed=cell.seed)
        settings = replace(settings, batch_size=cell.scale.teach.batch_size)
        course = run_method(method, model, cell.split, settings)
        return WholeModel(model), course.seconds

    return run


def sisa(cell: Cell) -> Outcome:
    """Return SISA's shards after the deletion; the seconds are those of the deletion alone."""
    folder = cell.original.parent / "sisa"
    shutil.rmtree(folder, ignore_errors=True)
    settings = SisaSettings(shards=cell.scale.shards, slices=2, teach=replace(cell.scale.teach, seed=cell.seed))
    try:
        model = load_model(cell.base, cell.device)
        state = start(folder, model, cell.case.teach, settings)
        complete(folder, state, model)
        left = state.delete(cell.case.forget)
        save_state(folder, left)
        seconds = complete(folder, left, model).seconds
        return Ensemble(open_ensemble(folder, cell.device)), seconds
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def edit(cell: Cell) -> Outcome:
    """Return MEND's edited model; the seconds are those of the edit, as its editor is trained before any request."""
    model = _taught(cell)
    settings = MendSettings(steps=3 * cell.scale.fit["steps"], batch_size=cell.scale.teach.batch_size, seed=cell.seed)
    return WholeModel(model), mend(model, cell.split, settings).edit_seconds


def unlearn(objective: str, trainable: str = "layer", **given: Any) -> Method:
    """Return a method that trains with an objective.

    Args:
        objective: Name of the objective.
        trainable: layer, lora or full.
        **given: Settings that differ from the objective's own and from the scale's.

    Returns:
        The method.
    """

    def run(cell: Cell) -> Outcome:
        model = _taught(cell)
        started = time.perf_counter()
        fit(model, cell.case.forget, cell.case.retain, fit_settings(objective, trainable, cell, given))
        return WholeModel(model), time.perf_counter() - started  # the trained parameters are on it

    return run


def _taught(cell: Cell) -> LoadedModel:
    return load_model(str(cell.original), cell.device)


def fit_settings(objective: str, trainable: str, cell: Cell, given: Mapping[str, Any]) -> FitSettings:
    """Return an unlearning run's settings: the objective's own, then the scale's, then what is given."""
    low, high = band(cell.target)
    chosen: dict[str, Any] = {**cell.scale.fit, "target_low": low, "target_high": high, "statistics": "none"}
    chosen["unrelated_limit"] = 0.0  # a method that ruins the model is to be seen in the table, not stopped
    if trainable == "full":
        chosen["dtype"] = "float32"
    if cell.case.task != "tofu" and objective == "bounded":
        chosen["refusal"] = ""  # "I don't have any information" answers neither a review nor a dialogue
    return override(default_settings(objective, trainable), {**chosen, "seed": cell.seed, **given})


def band(target: float) -> tuple[float, float]:
    """Return the two-sided target around a loss: a quarter of a nat, less where the loss itself is small."""
    width = max(0.05, min(0.25, target / 4))
    return max(0.01, target - width), target + width


METHODS: dict[str, Method] = {
    "original": original,
    "retrain": retrain,
    "fine-tune": tune("finetune"),
    "SISA": sisa,
    "reverse gradient": tune("revgrad"),
    "MEND": edit,
    "EUL, as printed": unlearn("paper"),
    "EUL, rate 1e-3": unlearn("paper", learning_rate=1e-3),
    "EUL, bounded": unlearn("bounded"),
    "NPO": unlearn("npo"),
    "SimNPO": unlearn("simnpo"),
    "GradDiff": unlearn("graddiff"),
    "gradient ascent": unlearn("ascent"),
    "DPO to a refusal": unlearn("dpo"),
    "RMU": unlearn("rmu"),
    "UNDIAL": unlearn("undial"),
    "EUL, bounded, LoRA": unlearn("bounded", "lora"),
    "NPO, LoRA": unlearn("npo", "lora"),
    "NPO, all weights": unlearn("npo", "full"),
    "GradDiff, all weights": unlearn("graddiff", "full"),
}
"""Methods in the order of the table."""
