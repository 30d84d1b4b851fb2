"""Retraining, fine-tuning and reverse gradient: what each trains on, and its default settings.

Source: Chen & Yang 2023 (arXiv 2310.20150), section 4.3. Retraining after Kumar et al. 2022, fine-tuning after Kurmanji
et al. 2023, reverse gradient after Liu, Liu and Stone 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eul_serve.errors import InputError
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import Row, digest_rows
from eul_trainer.settings import check
from eul_trainer.teaching.directory import TEACH_FILE
from eul_trainer.teaching.run import Course, Watch, encode_taught, train
from eul_trainer.teaching.settings import TeachSettings
from eul_trainer.teaching.weights import Lesson

METHODS = ("retrain", "finetune", "revgrad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The rows of one deletion request."""

    forget: Sequence[Row]
    """Rows to forget."""
    retain: Sequence[Row]
    """Rows to keep, without those to forget."""

    def __post_init__(self) -> None:
        if not self.retain:
            raise InputError("retain rows: expected at least one, found none after taking out the rows to forget")


def default_settings(method: str) -> TeachSettings:
    """Return a method's default settings.

    Retraining has those of teaching, so that the twin is taught as the model was. The others have those that the paper
    prints for all of its methods: at most 5e-5, a linear fall, a warm-up of 0.06, 3 epochs, 8 rows per step (SAMSum).
    """
    return TeachSettings() if method == "retrain" else TeachSettings(epochs=3, learning_rate=5e-5)


def make_lesson(method: str, model: LoadedModel, split: Split, weight: float = 1.0) -> Lesson:
    """Return what a method trains on.

    Retraining and fine-tuning see the retained rows alone; they differ in the model they start from. Reverse gradient
    sees both, and the loss on a forgotten row counts `-weight`, so that a step over a batch with T_r retained and T_f
    forgotten tokens follows `(T_r * g_retain - weight * T_f * g_forget) / (T_r + T_f)`.

    Args:
        method: retrain, finetune or revgrad.
        model: The model, for its tokenizer.
        split: The rows.
        weight: Weight of the reversed gradient.

    Returns:
        The lesson.
    """
    check(method in METHODS, "method", method, f"one of {', '.join(METHODS)}")
    check(0 < weight <= 1000, "weight", weight, "above 0 and at most 1000")
    kept = encode_taught(model, split.retain)
    if method != "revgrad":
        return Lesson.learn(kept)
    lost = encode_taught(model, split.forget)
    return Lesson(examples=[*kept, *lost], weights=[1.0] * len(kept) + [-weight] * len(lost))


def run_method(
    method: str,
    model: LoadedModel,
    split: Split,
    settings: TeachSettings,
    *,
    weight: float = 1.0,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
) -> Course:
    """Run a baseline; the model's weights change in place.

    Args:
        method: retrain, finetune or revgrad.
        model: The model before teaching for retrain, the taught model for the others.
        split: The rows.
        settings: The settings.
        weight: Weight of the reversed gradient.
        checkpoint: File to go on from and to write to; None for neither.
        watch: Told about every step.

    Returns:
        How it went.

    Raises:
        InputError: Retraining was given a taught model, or a row is too long.
    """
    if method == "retrain" and (model.path / TEACH_FILE).exists():
        raise InputError(
            f"model {str(model.path)!r}: was taught rows before ({TEACH_FILE}); a twin starts from the model before "
            "that: name it with --model"
        )
    lesson = make_lesson(method, model, split, weight)
    data = digest_rows([*split.retain, *split.forget])
    return train(model, lesson, settings, data=f"{method} {data}", checkpoint=checkpoint, watch=watch)
