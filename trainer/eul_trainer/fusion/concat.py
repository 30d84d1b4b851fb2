"""Layers side by side: an exact sum of their functions, at rank N r."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.correct import correct
from eul_trainer.fusion.job import Fused, Job
from eul_trainer.fusion.members import Member


def fuse(job: Job) -> Fused:
    """Put layers side by side, and correct them where a retain set is given; see correct.py."""
    return correct(job, concat(job.members))


def concat(members: Sequence[Member]) -> dict[str, LayerWeights]:
    """Put layers side by side: rank N r, exactly the sum of their functions.

    Args:
        members: The layers.

    Returns:
        The layers by module path.
    """
    return {module: _join([member.layers[module] for member in members]) for module in members[0].layers}


def _join(layers: Sequence[LayerWeights]) -> LayerWeights:
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return LayerWeights(
        torch.cat([layer.down for layer in layers]),
        torch.cat([layer.up for layer in layers], dim=1),
        torch.cat(biases) if biases else None,
        layers[0].activation,
    )
