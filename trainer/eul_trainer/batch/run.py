"""A batch from its plan to its report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eul_serve.errors import EulError, InputError
from eul_serve.format import Bundle
from eul_trainer.batch.fused import Effect, fuse_layers, measure
from eul_trainer.batch.plan import BatchSettings, Plan
from eul_trainer.batch.queue import Pool, Standing, Watch, drain
from eul_trainer.batch.report import Outcome, record, write_report
from eul_trainer.batch.serial import SerialPool
from eul_trainer.batch.state import done_layer, settle_plan
from eul_trainer.batch.task import Ending
from eul_trainer.upkeep.interrupt import Interrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Who is told how far a batch is."""

    begin: Callable[[Standing, int], Watch]
    """Called once with the queue's standing and the number of layers that are there; returns who looks at it."""
    say: Callable[[str], None]
    """Called with a line worth a person's attention."""


def run_batch(
    plan: Plan,
    settings: BatchSettings,
    folder: Path,
    address: str,
    progress: Progress,
    interrupt: Interrupt | None = None,
) -> dict[str, Any]:
    """Do what is missing of a batch, fuse, measure and report. The directory must be held, by `state.opened`.

    Args:
        plan: The batch.
        settings: How.
        folder: Its output directory.
        address: Address of a Ray cluster, `local`, or empty for this process alone.
        progress: Who is told.
        interrupt: Where a run in this process learns of a signal.

    Returns:
        The contents of `batch.json`.
    """
    started = time.perf_counter()
    settle_plan(folder, plan.facts, plan.digests())
    base = plan.tasks[0].base
    done = {task.id for task in plan.tasks if done_layer(folder, task.id, base)}
    left = [task for task in plan.tasks if task.id not in done]
    endings: dict[str, Ending] = {}
    if left:
        standing = Standing(total=len(left))
        watch = progress.begin(standing, len(done))
        pool = make_pool(address, settings, watch, interrupt)
        endings = drain(left, pool, settings.retries, standing, watch)
    layers = {task.id: layer for task in plan.tasks if (layer := done_layer(folder, task.id, base))}
    fused, effect, unfused = _fused(plan, layers, settings, folder, progress)
    found = record(
        plan,
        Outcome(
            layers=layers,
            endings=endings,
            fused=fused,
            effect=effect,
            unfused=unfused,
            seconds=time.perf_counter() - started,
        ),
    )
    write_report(folder, found)
    return found


def make_pool(address: str, settings: BatchSettings, watch: Watch, interrupt: Interrupt | None = None) -> Pool:
    """Return where tasks run.

    Args:
        address: Address of a Ray cluster, `local`, or empty for this process alone.
        settings: How many at once, and where they compute.
        watch: Told about steps, where they happen in this process.
        interrupt: Where they learn of a signal there.

    Returns:
        The pool.

    Raises:
        InputError: Several requests at once need a cluster.
    """
    if not address:
        if settings.jobs not in (None, 1):
            raise InputError(
                f"--jobs {settings.jobs}: one process honours one request at a time; add --ray-address local"
            )
        return SerialPool(watch, interrupt)
    from eul_trainer.batch.cluster import RayPool

    return RayPool(address, jobs=settings.jobs, cpus=settings.cpus, device=settings.device)


def _fused(
    plan: Plan, layers: dict[str, Bundle], settings: BatchSettings, folder: Path, progress: Progress
) -> tuple[Bundle | None, Effect | None, str | None]:
    missing = [task.id for task in plan.tasks if task.id not in layers]
    if not layers or (missing and not settings.allow_partial):
        return None, None, f"not fused: {', '.join(missing)} failed; --allow-partial fuses the rest"
    progress.say(f"fusing {len(layers)} layers by {settings.fuse_method}, and measuring the result")
    try:
        bundle = fuse_layers(plan, layers, settings, folder)
        return bundle, measure(plan, bundle, settings), None
    except EulError as error:
        return None, None, f"not fused: {error}"
