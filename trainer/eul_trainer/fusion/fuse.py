"""The whole of a fusion: check, fuse, write; and a revocation, which is a fusion without one request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from eul_serve.errors import InputError
from eul_serve.format import Bundle, ForgottenRequest, read_bundle
from eul_serve.format.config import MAX_RANK
from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion import concat as side_by_side
from eul_trainer.fusion.members import Member, collect, members_of
from eul_trainer.fusion.regression import RIDGE, regression
from eul_trainer.fusion.retained import RetainGram
from eul_trainer.fusion.shapes import checked_store
from eul_trainer.fusion.solve import RHO
from eul_trainer.fusion.store import Entry, Store, dump_store
from eul_trainer.output import check_output
from eul_trainer.package import Parcel, write_parcel
from eul_trainer.settings import check
from eul_trainer.statistics import LayerStatistics

METHODS = ("concat", "regression")


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseSettings:
    """How layers are fused."""

    method: str = "concat"
    """concat (side by side) or regression (the paper's closed form)."""
    rho: float = RHO
    """Weight of retained data against forgotten data; read by concat with a retain set."""
    ridge: float = RIDGE
    """Ridge of the solve, relative to the mean of the Gram's diagonal."""

    def __post_init__(self) -> None:
        check(self.method in METHODS, "method", self.method, f"one of {', '.join(METHODS)}")
        check(0 <= self.rho <= 1e6, "rho", self.rho, "0 to 1000000")
        check(0 < self.ridge <= 1, "ridge", self.ridge, "above 0 and at most 1")


def fuse(paths: Sequence[Path], out: Path, settings: FuseSettings, retain: RetainGram | None = None) -> Bundle:
    """Fuse trained layers and fused bundles into one bundle, and write it.

    Args:
        paths: The bundles' directories; their order does not matter.
        out: Directory to write.
        settings: The settings.
        retain: Measures retained data for `concat`; None leaves the exact sum.

    Returns:
        The fused bundle.

    Raises:
        InputError: The bundles cannot be fused so, or the output is taken.
        BundleMismatchError: They do not fit each other or the model.
    """
    check_output(out)
    started = time.perf_counter()
    bundles = [read_bundle(path) for path in paths]
    members = collect(bundles)
    if retain is not None and settings.method != "concat":
        raise InputError("--retain: read by --method concat alone; leave it out, or use --method concat")
    if settings.method == "concat" and sum(member.rank for member in members) > MAX_RANK:
        raise InputError(f"--method concat: the ranks add up to more than {MAX_RANK}; use --method regression")
    grams: dict[str, torch.Tensor] = {}
    facts: dict[str, Any] = {"method": settings.method, "ridge": settings.ridge, "rho": settings.rho}
    if retain is not None:
        grams = retain.measure(members, bundles[0])
        facts |= {"retain_data": retain.digest, "retain_tokens": retain.tokens}
    return _write(out, bundles[0], members, settings, grams, facts, started)


def revoke(path: Path, request: str, out: Path) -> Bundle:
    """Take a request out of a fused bundle, with no data at hand, and write the rest.

    Args:
        path: The fused bundle, as `fuse` wrote it.
        request: The request's id.
        out: Directory to write.

    Returns:
        The bundle without the request, equal to a fusion of the other layers with the same settings.

    Raises:
        InputError: The bundle has no such request, or no other.
    """
    check_output(out)
    started = time.perf_counter()
    bundle = read_bundle(path)
    members = members_of(bundle)
    known = [member.request.id for member in members]
    if request not in known:
        raise InputError(f"--request {request!r}: not in the bundle, which has {', '.join(known)}")
    rest = [member for member in members if member.request.id != request]
    if not rest:
        raise InputError(f"--request {request!r}: the bundle has no other request; stop serving it instead")
    facts = dict(bundle.manifest.settings.get("fusion", {}))
    settings = FuseSettings(method=facts["method"], rho=facts["rho"], ridge=facts["ridge"])
    store = checked_store(bundle)
    kept = _units_without(members, request)
    grams = {module: gram[kept][:, kept] for module, gram in store.retain.items()} if store else {}
    return _write(out, bundle, rest, settings, grams, facts, started)


def _units_without(members: Sequence[Member], request: str) -> torch.Tensor:
    flags = [torch.full((member.rank,), member.request.id != request) for member in members]
    return torch.cat(flags).nonzero()[:, 0]


def merge(members: Sequence[Member], settings: FuseSettings, grams: dict[str, torch.Tensor]) -> dict[str, LayerWeights]:
    """Return the fused layers; a single layer comes back bit for bit, before any solve."""
    if len(members) == 1:
        return members[0].layers
    if settings.method == "regression":
        return regression(members, settings.ridge)
    if not grams:
        return side_by_side.concat(members)
    return side_by_side.corrected(members, grams, settings.rho, settings.ridge)


def _write(
    out: Path,
    like: Bundle,
    members: Sequence[Member],
    settings: FuseSettings,
    grams: dict[str, torch.Tensor],
    facts: dict[str, Any],
    started: float,
) -> Bundle:
    layers = merge(members, settings, grams)
    parcel = Parcel(
        config=replace(like.config, rank=len(next(iter(layers.values())).down)),
        base=like.manifest.base,
        requests=_requests(members, settings.method),
        layers=layers,
        statistics=dump_store(Store(entries=[_entry(member) for member in members], retain=grams)),
        settings={"fusion": facts},
        parents=tuple(member.revision for member in members),
        run={"seconds": round(time.perf_counter() - started, 3)},
    )
    return write_parcel(out, parcel)


def _requests(members: Sequence[Member], method: str) -> tuple[ForgottenRequest, ...]:
    if method == "regression" or len(members) == 1:
        return tuple(replace(member.request, units=None) for member in members)
    found, first = [], 0
    for member in members:
        found.append(replace(member.request, units=(first, first + member.rank)))
        first += member.rank
    return tuple(found)


def _entry(member: Member) -> Entry:
    statistics = member.statistics or LayerStatistics(tokens=0, moments={})
    return Entry(request=member.request, revision=member.revision, statistics=statistics, layers=member.layers)
