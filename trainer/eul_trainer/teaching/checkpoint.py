"""Where a killed run of full-weights training goes on: weights and moments in one file, replaced whole."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from eul_serve.errors import CapacityError, InputError
from eul_trainer.teaching.weights import FullTraining

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run is."""

    step: int = 0
    """Steps taken."""
    seconds: float = 0.0
    """Seconds spent so far, over all calls."""
    losses: list[float] = field(default_factory=list)
    """Plain mean loss of each step, nats."""


def save(path: Path, identity: str, training: FullTraining, progress: Progress) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        path: The file.
        identity: Digest of settings, data and model.
        training: The run.
        progress: How far it is.

    Raises:
        CapacityError: The disk is full, or the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in training.parameters.items():
        tensors[f"parameter.{name}"] = parameter.detach().contiguous()
        state = training.optimizer.state[parameter]
        tensors |= {f"{moment}.{name}": state[moment].contiguous() for moment in _MOMENTS if moment in state}
    facts = json.dumps({"identity": identity, "progress": asdict(progress)})
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(tensors, part, metadata={"state": facts})
        os.replace(part, path)
    except (OSError, safetensors.SafetensorError) as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise CapacityError(f"checkpoint {str(path)!r}: cannot write: {error}; free space") from error


def load(path: Path, identity: str, training: FullTraining) -> Progress:
    """Restore a run, if there is a checkpoint of it.

    Args:
        path: The checkpoint.
        identity: Digest of settings, data and model.
        training: The run to restore into.

    Returns:
        How far it was; step 0 where there is no checkpoint.

    Raises:
        InputError: The checkpoint is damaged, or of a run with other settings, data or model.
    """
    if not path.is_file():
        return Progress()
    try:
        with safetensors.safe_open(path, framework="pt", device=str(training.runner.model.device)) as file:
            facts = json.loads((file.metadata() or {})["state"])
            if facts["identity"] != identity:
                raise InputError(
                    f"checkpoint {str(path)!r}: of a run with other settings, data or model; run that line again, "
                    "name another --out, or start anew with --fresh"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise InputError(f"checkpoint {str(path)!r}: damaged; start anew with --fresh") from error
    _restore(training, tensors)
    return Progress(**facts["progress"])


@torch.no_grad()
def _restore(training: FullTraining, tensors: dict[str, torch.Tensor]) -> None:
    for name, parameter in training.parameters.items():
        parameter.copy_(tensors[f"parameter.{name}"])
        moments = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS if f"{moment}.{name}" in tensors}
        if moments:  # a parameter that no loss reaches has none
            training.optimizer.state[parameter] = moments
