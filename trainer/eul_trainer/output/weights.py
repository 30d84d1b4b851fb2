"""What a baseline's training gives: a LoRA as a PEFT directory, all weights as a Hugging Face directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from eul_trainer.model.load import LoadedModel
from eul_trainer.output.result import FitResult
from eul_trainer.settings import FitSettings
from eul_trainer.teaching.directory import write_model

FIT_FILE = "fit.json"
"""Record of the run, beside the weights."""
KINDS = {
    "lora": "a PEFT LoRA, not a bundle: load it with PeftModel.from_pretrained; fuse, revoke and eul publish refuse it",
    "full": "a whole model, not a bundle: use it as --model; fuse, revoke and eul publish refuse it",
}
"""What was written, in words, by what was trained."""


def write_weights(
    out: Path, model: LoadedModel, result: FitResult, settings: FitSettings, request: str, run: dict[str, Any]
) -> None:
    """Write what was trained whole or not at all.

    Args:
        out: The directory; new or empty.
        model: The base model.
        result: The result, of a run that trained no unlearning layer.
        settings: Its settings.
        request: Opaque id of the request.
        run: What is recorded of the run, plain JSON.
    """
    record = {
        "request": request,
        "base": result.base.fingerprint,
        "data": result.data,
        "settings": settings.to_json(),
        "forget_before": result.before,
        "forget_after": result.after,
        "steps": result.steps,
        "scale": result.scale,
        "target_reached": result.reached,
        **run,
    }
    write_model(out, replace(model, network=result.network), FIT_FILE, record)
