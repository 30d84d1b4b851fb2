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

from eul_serve.errors import CapacityError, InputError
from eul_trainer.fit.training import Training
from eul_trainer.upkeep.identity import Identity

EVERY = 8
"""Steps between two checkpoints, unless told otherwise."""
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_RANDOM = "random.cpu"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was read and belongs to the run."""

    path: Path
    """The file."""
    state: RunState
    """How far the run was."""
    tensors: dict[str, torch.Tensor]
    """Everything else, by name."""

    def restore(self, training: Training) -> RunState:
        """Put parameters, optimiser and random state back.

        Args:
            training: The run, fresh.

        Returns:
            How far it was.

        Raises:
            InputError: Something is not there or has another shape.
        """
        try:
            _restore(training, self.tensors)
        except (KeyError, RuntimeError) as error:
            raise _damaged(self.path, str(error)) from error
        return self.state


def checkpoint_path(out: Path) -> Path:
    """Return where the checkpoint of a run with this output lies."""
    return out.with_name(f".{out.name}.resume.safetensors")


def save_checkpoint(path: Path, identity: Identity, training: Training, state: RunState) -> None:
    """Write a checkpoint whole or not at all, so that even a power cut leaves the old one or the new one.

    Args:
        path: The file.
        identity: What the run is made of.
        training: The run.
        state: How far it is.

    Raises:
        CapacityError: The disk is full, or the file cannot be written; the checkpoint before it stays.
    """
    facts = {"identity": identity.to_json(), "step": state.step, "curve": state.curve, "best_loss": state.best_loss}
    facts |= {"best_step": state.best_step, "reached": state.reached}
    data = safetensors.torch.save(_tensors(training, state), metadata={"state": json.dumps(facts)})
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        kept = "; the checkpoint before it stays, so run the line again after that" if path.is_file() else ""
        raise CapacityError(f"checkpoint {str(path)!r}: cannot write: {error.strerror}; free space{kept}") from error


def _tensors(training: Training, state: RunState) -> dict[str, torch.Tensor]:
    tensors = {f"best.{name}": tensor for name, tensor in state.best.items()}
    for name, parameter in training.parameters.items():
        tensors[f"parameter.{name}"] = parameter.detach()
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = training.optimizer.state[parameter][moment]
    tensors[_RANDOM] = torch.get_rng_state()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_checkpoint(path: Path, identity: Identity) -> Checkpoint | None:
    """Read a checkpoint, if there is one.

    Args:
        path: The file.
        identity: What the run is made of now.

    Returns:
        The checkpoint, or None where there is nothing to go on from.

    Raises:
        InputError: The file is damaged, or of a run with other settings or data.
    """
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        then = Identity.from_json(facts["identity"])
        best = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("best.")}
        known = {name: facts[name] for name in ("step", "curve", "best_loss", "best_step", "reached")}
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise _damaged(path, str(error)) from error
    if changes := identity.changes(then):
        raise InputError(
            f"checkpoint {str(path)!r}: a run to this output was cut off after {known['step']} steps with other "
            f"settings or data: {'; '.join(changes)}; restore them to go on, or start anew with --fresh"
        )
    return Checkpoint(path=path, state=RunState(best=best, **known), tensors=tensors)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"checkpoint {str(path)!r}: damaged: {why:.200}; start anew with --fresh")


def _restore(training: Training, tensors: dict[str, torch.Tensor]) -> None:
    for name, parameter in training.parameters.items():
        with torch.no_grad():
            parameter.copy_(tensors[f"parameter.{name}"])
        place = {"exp_avg": parameter.device, "exp_avg_sq": parameter.device, "step": torch.device("cpu")}
        training.optimizer.state[parameter] = {
            moment: tensors[f"{moment}.{name}"].to(place[moment]) for moment in _MOMENTS
        }
    torch.set_rng_state(tensors[_RANDOM])
