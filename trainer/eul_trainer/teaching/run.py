"""The loop of full-weights training, and teaching as its plain use."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eul_serve.format.digest import digest_bytes
from eul_trainer.forward.encoding import Example, context_limit, encode
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import Row, digest_rows
from eul_trainer.teaching.checkpoint import Progress, load, save
from eul_trainer.teaching.plan import epoch_batches, learning_rate, steps
from eul_trainer.teaching.settings import TeachSettings
from eul_trainer.teaching.weights import FullTraining, Lesson

CHECKPOINT_SECONDS = 120.0
"""Seconds between two checkpoints: one holds three times the weights, so that writing it takes seconds itself."""

Watch = Callable[[int, float, int], None]
"""Called after every step with the number of steps taken, the loss in nats, and the tokens of the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a training run went; the weights are in the model."""

    losses: list[float]
    """Plain mean loss over the answer tokens of each step, nats."""
    epochs: list[float]
    """Mean of the steps' losses by epoch, nats."""
    tokens: int
    """Tokens of one pass over the rows, prompts included."""
    seconds: float
    """Seconds, over all calls where the run was killed and went on."""
    resumed: int
    """Steps that an earlier, killed call had taken."""
    dtype: str
    """What products were computed in."""


def encode_taught(model: LoadedModel, rows: Sequence[Row]) -> list[Example]:
    """Return rows as token ids, the token that ends the answer included: a model must learn where to stop."""
    return encode(model.tokenizer, rows, limit=context_limit(model.network), end_token=True)


def teach(
    model: LoadedModel,
    rows: Sequence[Row],
    settings: TeachSettings,
    *,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
) -> Course:
    """Teach a model rows: cross-entropy on the answers, all weights train, in place.

    Args:
        model: The model; its weights change.
        rows: The rows, at least one.
        settings: The settings.
        checkpoint: File to go on from and to write to; None for neither.
        watch: Told about every step.

    Returns:
        How it went.
    """
    lesson = Lesson.learn(encode_taught(model, rows))
    return train(model, lesson, settings, data=digest_rows(rows), checkpoint=checkpoint, watch=watch)


def train(
    model: LoadedModel,
    lesson: Lesson,
    settings: TeachSettings,
    *,
    data: str,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Course:
    """Train all weights on a lesson, in place.

    Args:
        model: The model; its weights change.
        lesson: The rows and how much each counts.
        settings: The settings.
        data: Digest of the rows; with settings and model it says which run a checkpoint belongs to.
        checkpoint: File to go on from and to write to; None for neither.
        watch: Told about every step.
        checkpoint_seconds: Seconds between two checkpoints.

    Returns:
        How it went.
    """
    training = FullTraining(model, lesson, settings)
    identity = digest_bytes(
        json.dumps([settings.to_json(), data, list(lesson.weights), model.base.fingerprint]).encode()
    )
    progress = load(checkpoint, identity, training) if checkpoint else Progress()
    resumed, earlier = progress.step, progress.seconds
    started = saved = time.perf_counter()
    for step, rows in _left(training, progress.step):
        progress.losses.append(training.step(rows, learning_rate(settings, step, _total(training))))
        progress.step = step + 1
        now = time.perf_counter()
        progress.seconds = earlier + now - started
        if watch:
            watch(progress.step, progress.losses[-1], sum(lesson.examples[row].length for row in rows))
        if checkpoint and now - saved >= checkpoint_seconds and progress.step < _total(training):
            save(checkpoint, identity, training, progress)
            saved = time.perf_counter()
    model.network.requires_grad_(False)
    return _course(training, progress, resumed)


def _total(training: FullTraining) -> int:
    return steps(len(training.lesson.examples), training.settings)


def _left(training: FullTraining, done: int) -> list[tuple[int, tuple[int, ...]]]:
    lengths = [example.length for example in training.lesson.examples]
    batches = [
        batch for epoch in range(training.settings.epochs) for batch in epoch_batches(lengths, training.settings, epoch)
    ]
    return list(enumerate(batches))[done:]


def _course(training: FullTraining, progress: Progress, resumed: int) -> Course:
    per = _total(training) // training.settings.epochs
    passes = [progress.losses[first : first + per] for first in range(0, len(progress.losses), per)]
    return Course(
        losses=progress.losses,
        epochs=[sum(losses) / len(losses) for losses in passes],
        tokens=sum(example.length for example in training.lesson.examples),
        seconds=progress.seconds,
        resumed=resumed,
        dtype=str(training.dtype).removeprefix("torch."),
    )
