"""What fusion is compared with: trainings that see the earlier requests' layer or all requests' rows.

One layer trained on one request after another; one trained on all at once; and a layer for each request, trained on top
of those before it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import torch

from eul_serve.format import Bundle
from eul_serve.format.weights import LayerWeights
from eul_serve.peft import layers_of
from eul_trainer.fit.advance import advance
from eul_trainer.fit.finish import finish
from eul_trainer.fit.run import fit, prepare
from eul_trainer.fit.stop import Target
from eul_trainer.model.load import load_model
from eul_trainer.records import Row, digest_rows
from eul_trainer.settings import FitSettings
from eul_trainer.upkeep.checkpoint import RunState
from fusing.inputs import Inputs
from fusing.layers import for_requests, own_layer, read_layers, save_layers

Layers = dict[str, LayerWeights]


def in_sequence(
    folder: Path, model: str, inputs: Inputs, names: Sequence[str], settings: FitSettings
) -> tuple[Layers, float]:
    """Return one layer that was trained on requests one after another, as the paper's EUL is, and its seconds.

    The layer after every request is kept, so that a longer sequence goes on from the shorter one.

    Args:
        folder: Where the layers of this seed are kept.
        model: The base model's directory.
        inputs: The rows.
        names: The requests in their order.
        settings: The settings of each training.

    Returns:
        The layer after the last request, and the seconds of the last training: what one more request costs.
    """
    layers: Layers | None = None
    seconds = 0.0
    for number, name in enumerate(names, 1):
        path = folder / f"sequence-{number}.safetensors"
        record = path.with_suffix(".seconds")
        if not path.exists():
            started = time.perf_counter()
            layers = _continue(model, inputs.requests[name], inputs.retain, settings, layers)
            seconds = time.perf_counter() - started
            record.write_text(f"{seconds:.2f}")
            save_layers(path, layers)
            click.echo(f"{folder.name}, sequence {number}: {seconds:.0f} s", err=True)
        layers, seconds = read_layers(path), float(record.read_text())
    assert layers is not None
    return layers, seconds


def on_union(
    folder: Path, model: str, inputs: Inputs, names: Sequence[str], settings: FitSettings
) -> tuple[Layers, float]:
    """Return one layer that was trained on all requests at once, and its seconds."""
    path = folder / f"union-{len(names)}.safetensors"
    record = path.with_suffix(".seconds")
    if not path.exists():
        started = time.perf_counter()
        rows = [row for name in names for row in inputs.requests[name]]
        result = fit(load_model(model), rows, inputs.retain, for_requests(settings, len(names)))
        record.write_text(f"{time.perf_counter() - started:.2f}")
        save_layers(path, result.layers)
        click.echo(f"{folder.name}, union of {len(names)}: {record.read_text()} s", err=True)
    return read_layers(path), float(record.read_text())


def on_top(folder: Path, model: str, inputs: Inputs, names: Sequence[str], settings: FitSettings) -> list[Bundle]:
    """Return a layer for each request, each trained with the earlier ones on and frozen.

    Args:
        folder: Where the layers of this seed are kept.
        model: The base model's directory.
        inputs: The rows.
        names: The requests in their order.
        settings: The settings of each training.

    Returns:
        The layers in their order.
    """
    stack: list[Bundle] = []
    chain = folder / "on-top"
    chain.mkdir(exist_ok=True)
    for name in names:
        stack.append(own_layer(chain, model, name, inputs.requests[name], inputs.retain, settings, stack))
    return stack


def _continue(
    model: str, rows: Sequence[Row], retain: Sequence[Row], settings: FitSettings, layers: Layers | None
) -> Layers:
    """Train a layer on one request more, from where it stands, with the product's own step and stop.

    The product's closing solve is left out: it fits the whole layer to one request's rows, and with it the first of
    three requests came back whole.
    """
    alone = replace(settings, settle=0.0, shift=0.0, scale=1.0, statistics="none")  # nobody fuses the layer
    training = prepare(load_model(model), rows, retain, alone)
    before = training.measure()
    if layers is not None:
        _copy(layers, layers_of(training.trainable.network))
    state, target = RunState(), Target(low=settings.target_low, high=settings.target_high)
    while state.step < settings.steps and not state.reached:
        advance(training, state, target)
    return finish(training, state, digest_rows(rows), before, 0).layers


@torch.no_grad()
def _copy(source: Layers, target: Layers) -> None:
    for module, layer in source.items():
        mine = target[module]  # shares memory with the parameters
        mine.down.copy_(layer.down)
        mine.up.copy_(layer.up)
        if mine.bias is not None and layer.bias is not None:
            mine.bias.copy_(layer.bias)
