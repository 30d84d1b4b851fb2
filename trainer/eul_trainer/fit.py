"""Training one unlearning layer: the loop, its two-sided stop, and going on after a kill."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from eul_serve.format.digest import digest_bytes
from eul_serve.peft import layers_of
from eul_trainer.checkpoint import EVERY, RunState, load_checkpoint, save_checkpoint
from eul_trainer.example_sets import encode_sets
from eul_trainer.model import LoadedModel
from eul_trainer.records import Row, digest_rows
from eul_trainer.result import FitResult
from eul_trainer.settings import FitSettings
from eul_trainer.settle import settle
from eul_trainer.statistics import layer_statistics
from eul_trainer.stop import Target, probe_now, slowed
from eul_trainer.training import Training

Watch = Callable[[int, dict[str, float]], None]
"""Called after every step with the number of steps taken and the losses."""


def fit(
    model: LoadedModel,
    forget: Sequence[Row],
    retain: Sequence[Row],
    settings: FitSettings,
    *,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
) -> FitResult:
    """Train a layer that forgets one set of rows and keeps another.

    Args:
        model: The base model; its modules are wrapped in place, so load it afresh for another run.
        forget: Rows to forget.
        retain: Rows to keep, without those to forget.
        settings: The settings.
        checkpoint: File to go on from and to write to; None for neither.
        watch: Told about every step.

    Returns:
        The layer.

    Raises:
        InputError: A row is too long.
        EulError: A loss is not finite.
    """
    training = prepare(model, forget, retain, settings)
    identity = _identity(model, forget, retain, settings)
    state = (load_checkpoint(checkpoint, identity, training) if checkpoint else None) or RunState()
    resumed = state.step
    before = state.curve[0]["before"] if state.curve else training.probe()
    target = Target(low=settings.target_low, high=settings.target_high)
    while state.step < settings.steps and not state.reached:
        losses = training.step(state.step, slowed(_probes(state), target))
        if not state.curve:
            losses["before"] = before
        _advance(training, state, losses, target)
        if checkpoint and state.step % EVERY == 0 and not state.reached:
            save_checkpoint(checkpoint, identity, training, state)
        if watch:
            watch(state.step, losses)
    return _finish(training, state, digest_rows(forget), before, resumed)


def prepare(model: LoadedModel, forget: Sequence[Row], retain: Sequence[Row], settings: FitSettings) -> Training:
    """Encode the rows and make the model trainable."""
    return Training(model, encode_sets(model, forget, retain, settings), settings)


def _probes(state: RunState) -> list[float]:
    return [losses["probe"] for losses in state.curve if "probe" in losses]


def _advance(training: Training, state: RunState, losses: dict[str, float], target: Target) -> None:
    """Count the step, and measure the forget loss where it is time."""
    due = probe_now(state.step, _probes(state), target)
    state.step += 1
    state.curve.append(losses)
    if training.spec.printed or not (due or state.step == training.settings.steps):
        return
    loss = losses["probe"] = training.probe()
    if math.isfinite(loss) and target.better(loss, state.best_loss):
        state.best = {name: parameter.detach().clone() for name, parameter in training.parameters.items()}
        state.best_loss, state.best_step = loss, state.step
    state.reached = target.reached(loss)


def _finish(training: Training, state: RunState, data: str, before: float, resumed: int) -> FitResult:
    settings = training.settings
    with torch.no_grad():
        for name, tensor in state.best.items():
            training.parameters[name].copy_(tensor)
    trained = training.probe() if state.best_loss is None else state.best_loss
    settle(training, settings.settle)
    return FitResult(
        config=training.trainable.config,
        base=training.runner.model.base,
        data=data,
        layers=layers_of(training.trainable.network),
        statistics=layer_statistics(
            training.runner,
            training.trainable.network,
            training.sets.forget,
            settings.statistics,
            settings.statistics_rank,
        ),
        curve=state.curve,
        steps=state.best_step or state.step,
        before=before,
        after=training.probe() if settings.settle else trained,
        reached=Target(low=settings.target_low, high=settings.target_high).reached(trained),
        resumed=resumed,
    )


def _identity(model: LoadedModel, forget: Sequence[Row], retain: Sequence[Row], settings: FitSettings) -> str:
    facts = [settings.to_json(), digest_rows(forget), digest_rows(retain), model.base.fingerprint]
    return digest_bytes(json.dumps(facts, sort_keys=True).encode())
