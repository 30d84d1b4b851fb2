"""From a file of requests to tasks: everything is read and checked here, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError
from eul_serve.format import read_base
from eul_serve.format.config import MAX_RANK
from eul_trainer.batch.rows import RULES, Owners
from eul_trainer.batch.task import RowFile, Task
from eul_trainer.fusion.methods import METHODS
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.model.load import resolve
from eul_trainer.records import Row, digest_rows, read_rows
from eul_trainer.request import Request, read_requests
from eul_trainer.settings import FitSettings, check


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How a batch is honoured."""

    fit: FitSettings = field(default_factory=FitSettings)
    """How each layer is trained."""
    fuse_method: str = "concat"
    """How the layers become one bundle."""
    rule: str = "all"
    """Whose rows leave a retain set: all (of every request of the batch) or earlier (of itself and earlier ones)."""
    device: str = "cpu"
    """Where a worker computes, as torch names it."""
    retries: int = 2
    """Further attempts at a request that failed."""
    jobs: int | None = None
    """Requests at once; None for as many as the cluster has processors for."""
    cpus: int = 1
    """Processors that Ray gives each request, which is also its number of threads."""
    allow_partial: bool = False
    """Fuse what there is although a request failed."""

    def __post_init__(self) -> None:
        check(self.rule in RULES, "retain-rule", self.rule, f"one of {', '.join(RULES)}")
        check(0 <= self.retries <= 100, "retries", self.retries, "0 to 100")
        check(self.jobs is None or 1 <= self.jobs <= 10_000, "jobs", self.jobs, "1 to 10000")
        check(1 <= self.cpus <= 1024, "cpus", self.cpus, "1 to 1024")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The files of a batch."""

    requests: Path
    """File of requests."""
    retain: Path
    """JSON lines to keep."""
    model: str
    """Base model: a directory, or a name on the hub."""
    folder: Path
    """Output directory."""
    earlier: tuple[Path, ...] = ()
    """Files of requests that were honoured before; their rows leave every retain set."""
    unrelated: Path | None = None
    """JSON lines whose loss must not rise; None stands for those to keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done."""

    tasks: tuple[Task, ...]
    """One per request, in the order in which they came in."""
    forget: dict[str, list[Row]]
    """Rows to forget by request."""
    kept: dict[str, int]
    """Number of retained rows by request."""
    retain: list[Row]
    """Retained rows that no request forgets, for the fusion."""
    shared: dict[str, dict[str, int]]
    """Rows that requests share, by request and by the other one."""
    facts: dict[str, Any]
    """What a repeated call must agree with, plain JSON."""

    def digests(self) -> dict[str, dict[str, str]]:
        """Return what identifies the data of each request."""
        return {task.id: {"forget": task.forget.digest, "retain": task.retain.digest} for task in self.tasks}


def make_plan(sources: Sources, settings: BatchSettings) -> Plan:
    """Read and check everything that a batch needs.

    Args:
        sources: The files.
        settings: The settings.

    Returns:
        The plan.

    Raises:
        InputError: A file, row, digest or setting is not acceptable, or a request has nothing left to keep.
    """
    _check_method(settings)
    requests = sorted(read_requests(sources.requests), key=lambda found: (found.received or "", found.id))
    before = [request for path in sources.earlier for request in read_requests(path)]
    _check_ids(requests, before)
    _check_rank(len(requests), settings)
    retain = read_rows(sources.retain)
    forget = {request.id: request.read() for request in requests}
    owners = Owners(forget, [row for request in before for row in request.read()])
    model = resolve(sources.model)
    base = read_base(model).fingerprint
    files = [_file(request) for request in [*before, *requests]]
    unrelated = _rows_of(sources.unrelated) if sources.unrelated else None
    tasks, kept = [], {}
    for place, request in enumerate(requests):
        rows = owners.kept(retain, request.id, settings.rule)
        _check_kept(rows, request.id, sources.retain)
        kept[request.id] = len(rows)
        last = len(files) if settings.rule == "all" else len(before) + place + 1
        tasks.append(
            Task(
                id=request.id,
                model=model.resolve(),
                base=base,
                forget=_file(request),
                retain=RowFile(path=sources.retain.resolve(), digest=digest_rows(rows)),
                taken_out=tuple(files[:last]),
                settings=settings.fit,
                device=settings.device,
                folder=sources.folder.resolve(),
                unrelated=unrelated,
            )
        )
    left = owners.left(retain)
    _check_kept(left, "the fused bundle", sources.retain)
    facts: dict[str, Any] = {"base": base, "fit": settings.fit.to_json(), "retain_rule": settings.rule}
    facts["unrelated"] = unrelated.digest if unrelated else None
    return Plan(tasks=tuple(tasks), forget=forget, kept=kept, retain=left, shared=owners.shared(), facts=facts)


def _file(request: Request) -> RowFile:
    return RowFile(path=request.rows.resolve(), digest=request.digest)


def _rows_of(path: Path) -> RowFile:
    return RowFile(path=path.resolve(), digest=digest_rows(read_rows(path)))


def _check_ids(requests: Sequence[Request], before: Sequence[Request]) -> None:
    known = {request.id for request in before}
    for request in requests:
        if request.id in known:
            raise InputError(f"request {request.id!r}: also in the file of earlier requests; leave it out of one")


def _check_method(settings: BatchSettings) -> None:
    """Refuse a method before any work, and not when all layers are there."""
    name = settings.fuse_method
    method = METHODS[FuseSettings(method=name).method]
    if not method.written:
        raise InputError(f"--fuse-method {name}: the bundle format cannot hold it; measure it with eul-train fuse")
    if method.inputs and settings.fit.statistics != "full":
        raise InputError(
            f"--fuse-method {name}: reads moments of the layers' inputs, which --statistics "
            f"{settings.fit.statistics} does not store; add --statistics full"
        )


def _check_rank(count: int, settings: BatchSettings) -> None:
    if METHODS[settings.fuse_method].own_units and count * settings.fit.rank > MAX_RANK:
        raise InputError(
            f"--fuse-method {settings.fuse_method}: {count} requests of rank {settings.fit.rank} add up to more than "
            f"{MAX_RANK}; "
            "lower --rank, split the batch, or use --fuse-method compress"
        )


def _check_kept(rows: Sequence[Row], whose: str, path: Path) -> None:
    if not rows:
        raise InputError(
            f"retain file {str(path)!r}: nothing is left of it for {whose} once the rows to forget are taken out; "
            "add rows that nobody asks to have forgotten"
        )
