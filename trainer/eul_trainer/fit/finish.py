"""The end of a run: the chosen state is put back, settled against retained rows, and scaled to its target."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from eul_serve.peft import layers_of
from eul_trainer.fit.scale import scale_to_target
from eul_trainer.fit.settle import retained_moments, settle
from eul_trainer.fit.stop import Target
from eul_trainer.fit.training import Training
from eul_trainer.moments.measured import Measured
from eul_trainer.moments.statistics import LayerStatistics, layer_statistics
from eul_trainer.output.result import FitResult
from eul_trainer.upkeep.checkpoint import RunState


def finish(training: Training, state: RunState, data: str, before: float, resumed: int) -> FitResult:
    """Finish a run.

    Args:
        training: The trained run; its parameters are changed in place.
        state: How far it went.
        data: Digest of the forgotten rows.
        before: Forget loss of the base model, nats.
        resumed: Steps that an earlier call had taken.

    Returns:
        What was trained.
    """
    settings, trainable = training.settings, training.trainable
    with torch.no_grad():
        for name, tensor in state.best.items():
            training.parameters[name].copy_(tensor)
    layers = trainable.kind == "layer"
    retain = settle(training, settings.settle, settings.shift) if layers else {}
    target = Target(low=settings.target_low, high=settings.target_high)
    scale, after = scale_to_target(training, before, target)
    return FitResult(
        config=trainable.config,
        base=training.runner.model.base,
        data=data,
        layers=layers_of(trainable.network) if layers else {},
        statistics=_statistics(training, layers, retain),
        curve=state.curve,
        steps=state.best_step or state.step,
        before=before,
        after=after,
        scale=scale,
        reached=target.reached(after),
        resumed=resumed,
        network=None if layers else trainable.network,
    )


def _statistics(training: Training, layers: bool, retain: Mapping[str, Measured]) -> LayerStatistics:
    forget, settings = training.sets.forget, training.settings
    if not layers:
        return LayerStatistics(tokens=sum(len(example.answer) for example in forget), moments={})
    network, keep = training.trainable.network, settings.statistics
    if keep == "full" and not retain:  # of these the inputs alone are read, and no layer changes them
        retain = retained_moments(training, inputs=True)
    return layer_statistics(training.runner, network, forget, retain, keep, settings.statistics_rank)
