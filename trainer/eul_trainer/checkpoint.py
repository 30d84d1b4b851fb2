"""Where a killed run goes on: one safetensors file beside the output, replaced whole, removed at the end."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from eul_serve.errors import CapacityError
from eul_trainer.training import Training

EVERY = 8
"""Steps between two checkpoints."""
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(slots=True, kw_only=True)
class RunState:
    """How far a run is."""

    step: int = 0
    """Steps taken."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """Losses of each step, and the measured forget loss where there was a measurement."""
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    """Parameters at the measurement nearest to the target; empty before the first."""
    best_loss: float | None = None
    """The forget loss measured there, nats."""
    best_step: int = 0
    """Steps taken there."""
    reached: bool = False
    """Whether the last measurement was inside of the target band."""


def checkpoint_path(out: Path) -> Path:
    """Return where the checkpoint of a run with this output lies."""
    return out.with_name(f".{out.name}.resume.safetensors")


def save_checkpoint(path: Path, identity: str, training: Training, state: RunState) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        path: The file.
        identity: Digest of settings, data and base model.
        training: The run.
        state: How far it is.

    Raises:
        CapacityError: The disk is full, or the file cannot be written.
    """
    tensors = {f"best.{name}": tensor for name, tensor in state.best.items()}
    for name, parameter in training.parameters.items():
        tensors[f"parameter.{name}"] = parameter.detach()
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = training.optimizer.state[parameter][moment]
    facts = {"identity": identity, "step": state.step, "curve": state.curve, "best_loss": state.best_loss}
    facts |= {"best_step": state.best_step}
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        part.write_bytes(safetensors.torch.save(contiguous, metadata={"state": json.dumps(facts)}))
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise CapacityError(f"checkpoint {str(path)!r}: cannot write: {error.strerror}; free space") from error


def load_checkpoint(path: Path, identity: str, training: Training) -> RunState | None:
    """Restore a run, if the checkpoint is there and of a run with the same settings and data.

    Args:
        path: The checkpoint.
        identity: Digest of settings, data and base model.
        training: The run to restore into.

    Returns:
        How far it was, or None where there is nothing to go on from.
    """
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (OSError, ValueError, KeyError, safetensors.SafetensorError):
        return None
    if facts.get("identity") != identity:
        return None
    _restore(training, tensors)
    best = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("best.")}
    return RunState(
        step=facts["step"], curve=facts["curve"], best=best, best_loss=facts["best_loss"], best_step=facts["best_step"]
    )


def _restore(training: Training, tensors: dict[str, torch.Tensor]) -> None:
    for name, parameter in training.parameters.items():
        with torch.no_grad():
            parameter.copy_(tensors[f"parameter.{name}"])
        place = {"exp_avg": parameter.device, "exp_avg_sq": parameter.device, "step": torch.device("cpu")}
        training.optimizer.state[parameter] = {
            moment: tensors[f"{moment}.{name}"].to(place[moment]) for moment in _MOMENTS
        }
