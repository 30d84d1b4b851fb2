"""The record of a baseline, `baseline.json`: what it was made from, with which settings, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eul_trainer.baselines.methods import Split
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import digest_rows
from eul_trainer.teaching.directory import training_record, write_model
from eul_trainer.teaching.run import Course
from eul_trainer.teaching.settings import TeachSettings

BASELINE_FILE = "baseline.json"


def write_baseline(
    out: Path, method: str, model: LoadedModel, split: Split, settings: TeachSettings, course: Course, **more: float
) -> dict[str, Any]:
    """Write a baseline's model directory and its record.

    Args:
        out: The directory; new or empty.
        method: Name of the method.
        model: The trained model.
        split: The rows.
        settings: The settings.
        course: How it went.
        **more: Further facts of the method.

    Returns:
        The record.
    """
    record = {
        **training_record(model, split.retain, settings, course),
        "method": method,
        "forget_data": digest_rows(split.forget),
        "forget_rows": len(split.forget),
        **more,
    }
    write_model(out, model, BASELINE_FILE, record)
    return record
