"""One step of a run, and what is measured after it: the losses that stop a run, and the parameters worth keeping."""

from __future__ import annotations

import math

from eul_trainer.fit.guard import Guard
from eul_trainer.fit.stop import Target, probe_now
from eul_trainer.fit.training import Training
from eul_trainer.upkeep.checkpoint import RunState


def advance(training: Training, state: RunState, target: Target, guard: Guard | None = None) -> dict[str, float]:
    """Take one step, and measure where it is time.

    Args:
        training: The run.
        state: How far it is; counts the step, and keeps its losses and the best parameters.
        target: The band of the forget loss.
        guard: Watches unrelated rows; None watches nothing.

    Returns:
        The step's losses, nats, and the measured ones among them.

    Raises:
        EulError: A loss is not finite, or that of unrelated rows has risen past its limit.
    """
    losses = training.step(state.step)
    settings = training.settings
    probes = [earlier["probe"] for earlier in state.curve if "probe" in earlier]
    due = probe_now(state.step, probes, target, settings.least_steps)
    state.step += 1
    state.curve.append(losses)
    if due or state.step == settings.steps:
        losses |= guard.check(state.step) if guard else {}
        if not training.spec.printed:
            _probe(training, state, losses, target)
    return losses


def _probe(training: Training, state: RunState, losses: dict[str, float], target: Target) -> None:
    """Measure the forget loss, and keep the parameters where it is the best so far or can be scaled back."""
    settings = training.settings
    loss = losses["probe"] = training.probe()
    passed = target.passed(loss)
    state.reached = passed and state.step >= settings.least_steps
    scaled_back = passed and settings.scale > 1
    if scaled_back or (math.isfinite(loss) and target.better(loss, state.best_loss)):
        state.best = {name: parameter.detach().clone() for name, parameter in training.parameters.items()}
        state.best_loss, state.best_step = loss, state.step
