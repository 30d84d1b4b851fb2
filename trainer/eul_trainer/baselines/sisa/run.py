"""Training whatever a SISA state lacks: all of it at first, after a deletion the shards that held a deleted row."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eul_serve.errors import BundleMismatchError
from eul_trainer.baselines.sisa.settings import SisaSettings
from eul_trainer.baselines.sisa.state import SisaState, place_rows, save_state
from eul_trainer.baselines.sisa.store import Checkpoints
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import Row, digest_rows
from eul_trainer.teaching.plan import steps
from eul_trainer.teaching.precision import compute_dtype
from eul_trainer.teaching.run import Watch, encode_taught, train
from eul_trainer.teaching.weights import Lesson


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: a shard's training on its slices up to one."""

    shard: int
    """The shard."""
    slice: int
    """The last slice that it sees."""
    rows: int
    """Rows that it sees."""
    steps: int
    """Optimiser steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SisaRun:
    """What a call trained."""

    stages: list[Stage]
    """The stages that were missing, in their order."""
    seconds: float
    """Seconds of this call."""
    removed: int
    """Checkpoints that were removed because they know a deleted row."""

    @property
    def steps(self) -> int:
        """Optimiser steps of this call."""
        return sum(stage.steps for stage in self.stages)

    @property
    def restarts(self) -> dict[int, int]:
        """First trained slice of each shard that was trained."""
        first: dict[int, int] = {}
        for stage in self.stages:
            first.setdefault(stage.shard, stage.slice)
        return first

    def to_json(self) -> dict[str, Any]:
        """Return the run as plain JSON."""
        return {
            "stages": [asdict(stage) for stage in self.stages],
            "restarts": {str(shard): first for shard, first in self.restarts.items()},
            "steps": self.steps,
            "removed": self.removed,
            "seconds": round(self.seconds, 2),
        }


def start(folder: Path, model: LoadedModel, rows: Sequence[Row], settings: SisaSettings) -> SisaState:
    """Place the rows and save a new training's state; nothing is trained yet.

    Args:
        folder: Directory of the training; new or empty.
        model: The model before teaching.
        rows: The rows.
        settings: The settings; an automatic number format is fixed to this machine's.

    Returns:
        The state.
    """
    encode_taught(model, rows)  # a row that is too long is found before anything is written
    dtype = str(compute_dtype(settings.teach.dtype, model.device)).removeprefix("torch.")
    fixed = replace(settings, teach=replace(settings.teach, dtype=dtype))
    path = str(model.path.resolve())
    state = SisaState(model=path, base=model.base.fingerprint, settings=fixed, rows=place_rows(rows, fixed))
    save_state(folder, state)
    return state


def total_steps(folder: Path, state: SisaState, model: LoadedModel) -> int:
    """Return the number of steps that `complete` is going to take."""
    return sum(stage.steps for stage in missing(state, Checkpoints(folder, model.network)))


def missing(state: SisaState, checkpoints: Checkpoints) -> list[Stage]:
    """Return the stages whose checkpoints are not there: from the first lacking one on, each shard's rest."""
    found: list[Stage] = []
    for shard in range(state.settings.shards):
        have = [checkpoints.has(state.key(shard, last)) for last in range(state.settings.slices)]
        first = have.index(False) if False in have else len(have)
        for last in range(first, len(have)):
            rows = len(state.part(shard, last))
            found.append(Stage(shard=shard, slice=last, rows=rows, steps=steps(rows, state.settings.stage)))
    return found


def complete(folder: Path, state: SisaState, model: LoadedModel, watch: Watch | None = None) -> SisaRun:
    """Train every missing stage, and remove the checkpoints that belong to no row list any more.

    A shard goes on from its last checkpoint before the first missing one. A stage starts with fresh moments and has a
    learning-rate schedule of its own, so that the weights are all that a restart needs.

    Args:
        folder: Directory of the training.
        state: The state, as saved there.
        model: The model before teaching; its weights change.
        watch: Told about every step, counted over all stages.

    Returns:
        What was trained.

    Raises:
        BundleMismatchError: The model is another one.
    """
    if model.base.fingerprint != state.base:
        raise BundleMismatchError(
            f"SISA training {str(folder)!r}: made from base model {state.base}, but this model is "
            f"{model.base.fingerprint}; name that model with --model"
        )
    started = time.perf_counter()
    checkpoints = Checkpoints(folder, model.network)
    stages = missing(state, checkpoints)
    checkpoints.reserve(len(stages))
    done = 0
    for stage in stages:
        _train_stage(state, model, checkpoints, stage, _from(watch, done))
        done += stage.steps
    keys = [state.key(shard, last) for shard, last in _places(state)]
    removed = checkpoints.prune(keys)
    return SisaRun(stages=stages, seconds=time.perf_counter() - started, removed=removed)


def _places(state: SisaState) -> Iterator[tuple[int, int]]:
    for shard in range(state.settings.shards):
        for last in range(state.settings.slices):
            yield shard, last


def _train_stage(
    state: SisaState, model: LoadedModel, checkpoints: Checkpoints, stage: Stage, watch: Watch | None
) -> None:
    if stage.slice:
        checkpoints.load(state.key(stage.shard, stage.slice - 1), model.network)
    else:
        checkpoints.reset(model.network)
    if rows := state.part(stage.shard, stage.slice):  # a shard may have lost all rows so far
        lesson = Lesson.learn(encode_taught(model, rows))
        train(model, lesson, state.settings.stage, data=digest_rows(rows), watch=watch)
    checkpoints.save(state.key(stage.shard, stage.slice), model.network)


def _from(watch: Watch | None, before: int) -> Watch | None:
    if watch is None:
        return None
    told = watch
    return lambda done, loss, tokens: told(before + done, loss, tokens)
