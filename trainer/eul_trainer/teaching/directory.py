"""A trained model as a Hugging Face directory with a record of how it came about."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors

from eul_serve.errors import CapacityError
from eul_trainer.model.load import LoadedModel
from eul_trainer.output.directory import unfinished
from eul_trainer.output.package import versions
from eul_trainer.records import Row, digest_rows
from eul_trainer.teaching.run import Course
from eul_trainer.teaching.settings import TeachSettings

TEACH_FILE = "teach.json"
"""Record of `eul-train teach`."""
_TOKENIZER_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "*.jinja",
)  # fmt: skip


def write_model(out: Path, model: LoadedModel, name: str, record: dict[str, Any]) -> None:
    """Write a model's directory whole or not at all.

    Args:
        out: The directory; new or empty.
        model: The model; its tokenizer's files are copied, so that their digests stay the same.
        name: Name of the record's file.
        record: The record.

    Raises:
        CapacityError: The disk is full, or the files cannot be written.
    """
    with unfinished(out) as part:
        try:
            model.network.save_pretrained(part)
        except safetensors.SafetensorError as error:  # what a full disk is to the library
            raise CapacityError(f"output {str(out)!r}: cannot write: {error}; free space or name another") from error
        for pattern in _TOKENIZER_FILES:
            for path in sorted(model.path.glob(pattern)):
                shutil.copyfile(path, part / path.name)
        text = json.dumps({**record, "versions": versions()}, indent=2, sort_keys=True, allow_nan=False)
        (part / name).write_text(text + "\n", encoding="utf-8")
        for path in part.iterdir():
            path.chmod(0o644)  # save_pretrained makes the weights readable by their owner alone
        os.replace(part, out)


def training_record(model: LoadedModel, rows: Sequence[Row], settings: TeachSettings, course: Course) -> dict[str, Any]:
    """Return what is recorded of a training run.

    Args:
        model: The model that was trained; the recorded fingerprint is the one before.
        rows: What it was trained on.
        settings: The settings.
        course: How it went.

    Returns:
        Plain JSON.
    """
    import torch

    return {
        "base": model.base.fingerprint,
        "data": digest_rows(rows),
        "rows": len(rows),
        "tokens": course.tokens,
        "settings": settings.to_json(),
        "dtype": course.dtype,
        "threads": torch.get_num_threads(),
        "steps": len(course.losses),
        "resumed_at": course.resumed,
        "loss_by_epoch": course.epochs,
        "losses": course.losses,
        "seconds": round(course.seconds, 2),
    }
