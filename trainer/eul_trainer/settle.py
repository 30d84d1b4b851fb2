"""Settling a trained layer: its up-projection solved once more against retained rows, as a fusion of one would."""

from __future__ import annotations

import torch

from eul_serve.peft import layers_of
from eul_trainer.fusion.solve import resolve_up
from eul_trainer.statistics import second_moments
from eul_trainer.training import Training


@torch.no_grad()
def settle(training: Training, weight: float) -> None:
    """Quieten the layers on retained rows, in closed form, at the price of a little forgetting.

    Training sees retained rows a few at a time and stops at the forget loss, so how far it moves near neighbours varies
    with the order of the rows; this takes most of that away.

    Args:
        training: The trained run; its layers' up-projections are changed in place.
        weight: Weight of retained against forgotten data, as rho of a fusion; 0 changes nothing.
    """
    if weight == 0:
        return
    runner, peft = training.runner, training.trainable.network
    layers = layers_of(peft)  # they share memory with the parameters
    forget = second_moments(runner, peft, training.sets.forget)
    trained = {module: layer.up.clone() for module, layer in layers.items()}
    for layer in layers.values():
        layer.up.zero_()  # retained rows are measured on the base model
    retain = second_moments(runner, peft, training.sets.retain, whole_rows=True)
    for module, layer in layers.items():
        up = trained[module].cpu()
        layer.up.copy_(resolve_up(up, forget[module].units, retain[module].units, rho=weight))
