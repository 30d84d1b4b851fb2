"""Every request's own layer, trained once a seed and kept on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import safetensors.torch
import torch

from eul_serve.format import Bundle, read_bundle
from eul_serve.format.weights import LayerWeights
from eul_trainer.fit.run import fit
from eul_trainer.model.load import load_model
from eul_trainer.output.package import write_parcel
from eul_trainer.output.result import parcel
from eul_trainer.records import Row
from eul_trainer.settings import FitSettings


def own_layer(
    folder: Path,
    model: str,
    request: str,
    rows: Sequence[Row],
    retain: Sequence[Row],
    settings: FitSettings,
    below: Sequence[Bundle] = (),
) -> Bundle:
    """Return a request's layer, trained at the first call.

    Args:
        folder: Where the layers of this seed are kept.
        model: The base model's directory.
        request: The request.
        rows: Its rows.
        retain: Rows to keep.
        settings: The settings of the training.
        below: Layers of earlier requests that are on, and frozen, while it is trained.

    Returns:
        The layer as a bundle.
    """
    out = folder / request
    if not out.exists():
        started, checkpoint = time.perf_counter(), folder / f"{request}.checkpoint"
        result = fit(load_model(model), rows, retain, settings, checkpoint=checkpoint, below=below)
        seconds = time.perf_counter() - started
        write_parcel(out, parcel(request, result, settings, {"seconds": round(seconds, 2)}))
        checkpoint.unlink(missing_ok=True)
        click.echo(
            f"{folder.name}, {request}: {result.before:.2f} -> {result.after:.2f} nats, {seconds:.0f} s", err=True
        )
    return read_bundle(out)


def for_requests(settings: FitSettings, count: int) -> FitSettings:
    """Return the settings for rows of several requests at once: as many steps a request as for one, within reason."""
    return replace(settings, steps=settings.steps * max(1, round(count / 4)))


def save_layers(path: Path, layers: dict[str, LayerWeights]) -> None:
    """Write layers whole or not at all."""
    tensors = {}
    for module, layer in layers.items():
        tensors |= {f"{module}|down": layer.down, f"{module}|up": layer.up}
        if layer.bias is not None:
            tensors[f"{module}|bias"] = layer.bias
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    activation = next(iter(layers.values())).activation
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    safetensors.torch.save_file(plain, part, metadata={"activation": activation})
    part.replace(path)


def read_layers(path: Path) -> dict[str, LayerWeights]:
    """Read what `save_layers` wrote."""
    with safetensors.safe_open(path, framework="pt") as file:
        activation = file.metadata()["activation"]
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name in file.keys():  # noqa: SIM118  # not a mapping
            module, _, part = name.rpartition("|")
            parts.setdefault(module, {})[part] = file.get_tensor(name)
    return {
        module: LayerWeights(found["down"], found["up"], found.get("bias"), activation)
        for module, found in parts.items()
    }
