"""The end of a batch: its layers as one bundle, and what that bundle does to every request and to retained rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eul_serve.errors import EulError
from eul_serve.format import Bundle, read_bundle
from eul_trainer.batch.plan import BatchSettings, Plan
from eul_trainer.fit.stop import probe_rows
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.forward.losses import row_losses
from eul_trainer.forward.runner import Runner
from eul_trainer.fusion.fuse import fuse
from eul_trainer.fusion.methods import METHODS
from eul_trainer.fusion.retained import Retained
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.model.adapter import BundleStack
from eul_trainer.model.load import LoadedModel, load_model
from eul_trainer.records import Row, digest_rows

RETAINED_ROWS = 60
"""Retained rows whose loss is measured, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What the fused bundle does, in mean answer loss, nats."""

    forget: dict[str, float]
    """By request, with the bundle, on the rows that its training was measured on."""
    retain_before: float
    """Retained rows on the base model."""
    retain_after: float
    """The same with the bundle."""


def fuse_layers(plan: Plan, layers: Mapping[str, Bundle], settings: BatchSettings, folder: Path) -> Bundle:
    """Fuse finished layers, unless an earlier call fused the same ones in the same way.

    Args:
        plan: The batch.
        layers: Finished layers by request.
        settings: Method and device.
        folder: The output directory of the batch.

    Returns:
        The fused bundle in `fused`; an older one is replaced only once the new one is whole.
    """
    target = folder / "fused"
    old = _current(target, plan, layers, settings)
    if old is not None:
        return old
    fresh, aside = folder / ".fused.new", folder / ".fused.old"
    for left in (fresh, aside):
        shutil.rmtree(left, ignore_errors=True)
    chosen = FuseSettings(method=settings.fuse_method)
    fuse([layer.path for layer in layers.values()], fresh, chosen, _retained(plan, settings, len(layers)))
    if target.exists():
        os.replace(target, aside)
    os.replace(fresh, target)
    shutil.rmtree(aside, ignore_errors=True)
    return read_bundle(target)


def _current(target: Path, plan: Plan, layers: Mapping[str, Bundle], settings: BatchSettings) -> Bundle | None:
    if not target.exists():
        return None
    try:
        bundle = read_bundle(target)
    except EulError:
        return None
    facts = bundle.manifest.settings.get("fusion", {})
    same = set(bundle.manifest.parents) == {layer.revision for layer in layers.values()}
    same = same and facts.get("method") == settings.fuse_method
    return bundle if same and facts.get("retain_data") in (None, digest_rows(plan.retain)) else None


def _retained(plan: Plan, settings: BatchSettings, count: int) -> Retained | None:
    if METHODS[settings.fuse_method].retain != "optional" or count == 1:
        return None
    return Retained(model=_model(plan, settings), rows=plan.retain)


def measure(plan: Plan, bundle: Bundle, settings: BatchSettings) -> Effect:
    """Measure the fused bundle on its requests' rows and on retained rows.

    Args:
        plan: The batch.
        bundle: The fused bundle.
        settings: The device.

    Returns:
        The losses.
    """
    model = _model(plan, settings)
    stack = BundleStack(model, [("fused", bundle)])
    covered = [found.id for found in bundle.manifest.requests]
    step = max(1, len(plan.retain) // RETAINED_ROWS)
    retain = plan.retain[::step][:RETAINED_ROWS]
    with stack.on(None):
        before = _loss(model, retain)
    with stack.on("fused"):
        forget = {request: _loss(model, _probed(plan.forget[request])) for request in covered}
        return Effect(forget=forget, retain_before=before, retain_after=_loss(model, retain))


def _probed(rows: Sequence[Row]) -> list[Row]:
    return [rows[index] for index in probe_rows(len(rows))]


def _model(plan: Plan, settings: BatchSettings) -> LoadedModel:
    return load_model(str(plan.tasks[0].model), settings.device)


def _loss(model: LoadedModel, rows: Sequence[Row]) -> float:
    examples = encode(model.tokenizer, rows, limit=context_limit(model.network))
    losses = row_losses(Runner(model, examples), examples)
    return sum(losses) / len(losses)
