"""The whole of a fusion: check, fuse, write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError
from eul_serve.format import Bundle, ForgottenRequest, read_bundle
from eul_serve.format.config import MAX_RANK
from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.job import Fused, Job
from eul_trainer.fusion.members import Member, collect
from eul_trainer.fusion.methods import METHODS, check_settings, resolved
from eul_trainer.fusion.retained import Retained
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.fusion.store import Entry, RetainMoments, Store, dump_store
from eul_trainer.model.load import LoadedModel
from eul_trainer.moments.statistics import LayerStatistics
from eul_trainer.output.directory import check_output
from eul_trainer.output.package import Parcel, write_parcel
from eul_trainer.records import Row


def fuse(paths: Sequence[Path], out: Path, settings: FuseSettings, retained: Retained | None = None) -> Bundle:
    """Fuse trained layers and fused bundles into one bundle, and write it.

    Args:
        paths: The bundles' directories; their order does not matter.
        out: Directory to write.
        settings: The settings.
        retained: Retained rows and the base model; None does without.

    Returns:
        The fused bundle.

    Raises:
        InputError: The bundles cannot be fused so, the format cannot hold the outcome, or the output is taken.
        BundleMismatchError: They do not fit each other or the model.
    """
    check_output(out)
    started = time.perf_counter()
    if not check_settings(settings, retain=retained is not None).written:
        raise InputError(
            f"--method {settings.method}: version 1 of the bundle format has no gates; measure it with --evaluate-only"
        )
    bundles = [read_bundle(path) for path in paths]
    members = collect(bundles)
    if retained is not None:
        retained.check_base(bundles[0])
    job = prepare(members, settings, retained)
    return write_fused(out, bundles[0], job, started)


def merged(
    members: Sequence[Member], settings: FuseSettings, model: LoadedModel | None = None, rows: Sequence[Row] = ()
) -> Fused:
    """Fuse layers in memory, by any method.

    Args:
        members: The layers.
        settings: The settings.
        model: The base model, where retained rows are read.
        rows: Retained rows.

    Returns:
        The layers, and what was found on the way.
    """
    retained = None if model is None else Retained(model=model, rows=rows)
    return merge(prepare(members, settings, retained))


def prepare(members: Sequence[Member], settings: FuseSettings, retained: Retained | None) -> Job:
    """Check what a fusion needs and measure retained rows.

    Args:
        members: The layers.
        settings: The settings.
        retained: Retained rows and the base model; None does without.

    Returns:
        The fusion, ready to be done.

    Raises:
        InputError: A setting has no effect or lacks what it needs, or the ranks add up to too much.
    """
    method = check_settings(settings, retain=retained is not None)
    if method.own_units and sum(member.rank for member in members) > MAX_RANK:
        raise InputError(
            f"--method {settings.method}: the ranks add up to more than {MAX_RANK}; use --method compress, distil or "
            "regression"
        )
    chosen = resolved(settings)
    moments: dict[str, RetainMoments] = {}
    if retained is not None:
        moments = retained.moments(method.stack(members, chosen), inputs=method.inputs)
    return Job(members=members, settings=chosen, moments=moments, retained=retained)


def merge(job: Job) -> Fused:
    """Do a fusion in memory; a single layer comes back bit for bit, before any solve."""
    if len(job.members) == 1:
        return Fused(layers=job.members[0].layers)
    return METHODS[job.settings.method].fuse(job)


def write_fused(out: Path, like: Bundle, job: Job, started: float, facts: dict[str, Any] | None = None) -> Bundle:
    """Do a fusion and write it.

    Args:
        out: Directory to write.
        like: A bundle of the same base model and shape.
        job: The fusion.
        started: When it began, by `time.perf_counter`.
        facts: Facts of an earlier fusion that are still true.

    Returns:
        The bundle.
    """
    fused = merge(job)
    layers = {path: layer for path, layer in fused.layers.items() if isinstance(layer, LayerWeights)}
    settings, method = job.settings, METHODS[job.settings.method]
    found: dict[str, Any] = {"method": settings.method, **{name: getattr(settings, name) for name in method.reads}}
    if job.retained is not None:
        found |= {"retain_data": job.retained.digest, "retain_tokens": job.retained.tokens}
    entries = [entry_of(member) for member in job.members]
    parcel = Parcel(
        config=replace(like.config, rank=len(next(iter(layers.values())).down)),
        base=like.manifest.base,
        requests=_requests(job.members, method.own_units),
        layers=layers,
        statistics=dump_store(Store(entries=entries, retain=job.moments)),
        settings={"fusion": {**found, **(facts or {}), **fused.facts}},
        parents=tuple(member.revision for member in job.members),
        run={"seconds": round(time.perf_counter() - started, 3)},
    )
    return write_parcel(out, parcel)


def _requests(members: Sequence[Member], own_units: bool) -> tuple[ForgottenRequest, ...]:
    if not own_units or len(members) == 1:
        return tuple(replace(member.request, units=None) for member in members)
    found, first = [], 0
    for member in members:
        found.append(replace(member.request, units=(first, first + member.rank)))
        first += member.rank
    return tuple(found)


def entry_of(member: Member) -> Entry:
    """Return what is stored of a member."""
    return Entry(
        request=member.request,
        revision=member.revision,
        statistics=member.statistics or LayerStatistics(tokens=0, moments={}),
        layers=member.layers,
        init_seed=member.init_seed,
        on_top_of=member.on_top_of,
    )
