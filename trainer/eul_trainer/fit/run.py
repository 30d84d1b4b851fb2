"""Training one unlearning layer: the loop, its two-sided stop, and going on after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from eul_serve.format import Bundle
from eul_trainer.fit.advance import advance
from eul_trainer.fit.example_sets import encode_sets
from eul_trainer.fit.finish import finish
from eul_trainer.fit.guard import Guard
from eul_trainer.fit.schedule import draw
from eul_trainer.fit.stop import Target
from eul_trainer.fit.training import Training
from eul_trainer.model.below import trained_layers
from eul_trainer.model.devices import SINGLE, Devices
from eul_trainer.model.load import LoadedModel
from eul_trainer.output.result import FitResult
from eul_trainer.records import Row, digest_rows
from eul_trainer.settings import FitSettings
from eul_trainer.upkeep.care import Care
from eul_trainer.upkeep.checkpoint import RunState, read_checkpoint, save_checkpoint
from eul_trainer.upkeep.identity import Identity, identify
from eul_trainer.upkeep.interrupt import Interrupted, signal_name
from eul_trainer.upkeep.memory import advised
from eul_trainer.upkeep.pace import Pace

Watch = Callable[[int, dict[str, float]], None]
"""Called after every step with the number of steps taken and the losses."""


def fit(
    model: LoadedModel,
    forget: Sequence[Row],
    retain: Sequence[Row],
    settings: FitSettings,
    *,
    unrelated: Sequence[Row] = (),
    checkpoint: Path | None = None,
    watch: Watch | None = None,
    care: Care | None = None,
    below: Sequence[Bundle] = (),
) -> FitResult:
    """Train a layer that forgets one set of rows and keeps another.

    Args:
        model: The base model; its modules are wrapped in place, so load it afresh for another run.
        forget: Rows to forget.
        retain: Rows to keep, without those to forget.
        settings: The settings.
        unrelated: Rows whose loss must not rise; none stands for those to keep.
        checkpoint: File to go on from and to write to; None for neither.
        watch: Told about every step.
        care: How the run is kept and followed; None for the defaults.
        below: Bundles that are on and frozen while the layer is trained.

    Returns:
        The layer.

    Raises:
        InputError: A row is too long, or the checkpoint is damaged or of a run with other settings or data.
        CapacityError: There is no memory, or no room for a checkpoint or log.
        Interrupted: A signal asked the run to end; its checkpoint is written.
        EulError: A loss is not finite, or that of unrelated rows has risen past its limit.
    """
    care = care or Care()
    identity = identify(
        model.base.fingerprint, (forget, retain, unrelated), settings, [bundle.revision for bundle in below]
    )
    found = read_checkpoint(checkpoint, identity) if checkpoint else None
    for recorder in care.recorders:
        recorder.begin(identity.digest, found.state.curve if found else [])
    with advised(settings, "while the teacher was run"):
        training = prepare(model, forget, retain, settings, unrelated=unrelated, devices=care.devices, below=below)
        guard = Guard(training)  # before anything has moved
        state = found.restore(training) if found else RunState()
        resumed = state.step
        before = state.curve[0]["before"] if state.curve else training.measure()
    save = partial(_save, checkpoint, identity, training, state)
    follow = _follower(training, state, watch, care)
    target = Target(low=settings.target_low, high=settings.target_high)
    _wait_for_steps(care, True)
    while state.step < settings.steps and not state.reached:
        with advised(settings, f"in step {state.step + 1}"):
            losses = advance(training, state, target, guard)
        state.curve[0]["before"] = before
        if state.step % care.every == 0 or state.reached or state.step == settings.steps:
            save()
        follow(losses)
        _end_if_asked(care, save, checkpoint, state)
    _wait_for_steps(care, False)
    _end_if_asked(care, save, checkpoint, state)  # a signal between the last look and now
    with advised(settings, "after the last step"):
        result = finish(training, state, digest_rows(forget), before, resumed)
    return replace(result, below=trained_layers(below))


def prepare(
    model: LoadedModel,
    forget: Sequence[Row],
    retain: Sequence[Row],
    settings: FitSettings,
    *,
    unrelated: Sequence[Row] = (),
    devices: Devices = SINGLE,
    below: Sequence[Bundle] = (),
) -> Training:
    """Encode the rows and make the model trainable."""
    sets = encode_sets(model, forget, retain, settings, unrelated)
    return Training(model, sets, settings, devices=devices, below=below)


def _save(path: Path | None, identity: Identity, training: Training, state: RunState) -> None:
    if path and training.devices.main:
        save_checkpoint(path, identity, training, state)


def _follower(
    training: Training, state: RunState, watch: Watch | None, care: Care
) -> Callable[[dict[str, float]], None]:
    """Return what is called after every step with its losses: it tells the watcher and the logs."""
    settings, sets = training.settings, training.sets
    pace = Pace(settings.steps, training.runner.model.device)

    def follow(losses: dict[str, float]) -> None:
        pace.tick(state.step, draw(settings, state.step - 1, len(sets.forget), len(sets.retain)).rows)
        if watch:
            watch(state.step, losses)
        for recorder in care.recorders:
            recorder.step(state.step, losses, pace)

    return follow


def _wait_for_steps(care: Care, wait: bool) -> None:
    """Let a signal wait for the end of the step that is being taken, or not."""
    if care.interrupt:
        care.interrupt.patient = wait


def _end_if_asked(care: Care, save: Callable[[], None], checkpoint: Path | None, state: RunState) -> None:
    number = care.devices.any(care.interrupt.number) if care.interrupt else 0
    if not number:
        return
    save()
    kept = f"saved in {str(checkpoint)!r}; run the same line again to go on" if checkpoint else "nothing was saved"
    raise Interrupted(number, f"ended by {signal_name(number)} after step {state.step}: {kept}")
