"""Settling a trained layer against retained rows, in closed form: its units shifted, its up-projection solved again."""

from __future__ import annotations

import torch

from eul_serve.peft import layers_of
from eul_trainer.fit.shift import shifted
from eul_trainer.fit.stop import probe_rows
from eul_trainer.fit.training import Training
from eul_trainer.fusion.solve import resolve_up
from eul_trainer.moments.gating import gate_of
from eul_trainer.moments.measured import Measured, second_moments

ROWS = 1024
"""Most retained rows that are measured: some fifty thousand tokens, for matrices of some hundred columns."""


@torch.no_grad()
def settle(training: Training, weight: float, shift: float = 0.0) -> dict[str, Measured]:
    """Quieten the layers on retained rows, at the price of a little forgetting.

    Training sees retained rows a few at a time and stops at the forget loss, so how far it moves near neighbours varies
    with the order of the rows; this takes most of that away.

    Args:
        training: The trained run; its layers are changed in place.
        weight: Weight of retained against forgotten data in the solve, as rho of a fusion; 0 leaves U as trained.
        shift: How far units are moved along the discriminant first, in their own size; 0 leaves D and b as trained.

    Returns:
        The moments on retained rows before the shift, with those of the inputs; empty without a shift.
    """
    measured = _shift(training, shift) if shift else {}
    if weight:
        forget, retain = forgotten_moments(training, inputs=False), retained_moments(training, inputs=False)
        for module, layer in layers_of(training.trainable.network).items():
            up = resolve_up(layer.up.cpu(), forget[module].units, retain[module].units, rho=weight)
            layer.up.copy_(up)
    return measured


def _shift(training: Training, amount: float) -> dict[str, Measured]:
    forget, retain = forgotten_moments(training, inputs=True), retained_moments(training, inputs=True)
    for module, layer in layers_of(training.trainable.network).items():
        gate = gate_of(forget[module].inputs, retain[module].inputs).to(layer.down.device)
        moved = shifted(layer, gate, forget[module].units.to(layer.down.device), amount)
        layer.down.copy_(moved.down)
        if layer.bias is not None and moved.bias is not None:
            layer.bias.copy_(moved.bias)
    return retain


def forgotten_moments(training: Training, *, inputs: bool) -> dict[str, Measured]:
    """Measure the forgotten answers with the layers on."""
    return second_moments(training.runner, training.trainable.network, training.sets.forget, inputs=inputs)


@torch.no_grad()
def retained_moments(training: Training, *, inputs: bool) -> dict[str, Measured]:
    """Measure retained rows on the base model: ROWS of them at most, spread evenly over the file.

    Args:
        training: The trained run; its layers are silent meanwhile.
        inputs: Measure the layers' inputs too.

    Returns:
        The moments by module path.
    """
    layers = layers_of(training.trainable.network)  # they share memory with the parameters
    trained = {module: layer.up.clone() for module, layer in layers.items()}
    for layer in layers.values():
        layer.up.zero_()
    network, rows = training.trainable.network, training.sets.retain
    chosen = [rows[row] for row in probe_rows(len(rows), ROWS)]
    found = second_moments(training.runner, network, chosen, inputs=inputs, whole_rows=True)
    for module, layer in layers.items():
        layer.up.copy_(trained[module])
    return found
