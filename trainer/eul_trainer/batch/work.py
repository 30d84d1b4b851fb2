"""Honouring one request, in whatever process this is: the same `fit` as the command's, and a log beside it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from eul_serve.errors import CapacityError, EngineError, EulError, InputError
from eul_trainer.batch.journal import write_event, write_start
from eul_trainer.batch.state import PLAN_FILE
from eul_trainer.batch.task import Ending, RowFile, Task
from eul_trainer.fit.run import fit
from eul_trainer.model.load import LoadedModel, load_model
from eul_trainer.output.package import write_parcel
from eul_trainer.output.result import FitResult, parcel
from eul_trainer.records import Row, digest_rows, read_rows, without
from eul_trainer.upkeep.care import Care
from eul_trainer.upkeep.checkpoint import checkpoint_path
from eul_trainer.upkeep.interrupt import Interrupt

INTERRUPTED = 127
"""Exit status above which an error is a signal that asked the run to end."""
Watch = Callable[[], None]
"""Called after every step."""


def work(task: Task, watch: Watch | None = None, interrupt: Interrupt | None = None) -> Ending:
    """Train a request's layer and write it; errors become an ending.

    Args:
        task: The request.
        watch: Told about every step.
        interrupt: Where the run learns of a signal, and ends after its step; None where it ends at once.

    Returns:
        How it ended. An interrupt is no ending: it is raised.
    """
    if not (task.folder / PLAN_FILE).is_file():
        reason = f"output {str(task.folder)!r}: not seen by this worker; put it on storage that all machines share"
        return Ending(id=task.id, reason=reason, hopeless=True)
    started = time.perf_counter()
    try:
        write_start(task.log, task.attempt)
        resumed = _honour(task, started, watch, interrupt)
        write_event(task.log, "done", seconds=_since(started), resumed_at=resumed)
        return Ending(id=task.id)
    except Exception as error:
        if isinstance(error, EulError) and error.exit_status > INTERRUPTED:
            raise
        ending = Ending(id=task.id, reason=describe(error), hopeless=_hopeless(error))
        with contextlib.suppress(CapacityError):  # the ending says it too
            write_event(task.log, "failed", seconds=_since(started), reason=ending.reason)
        return ending


def _honour(task: Task, started: float, watch: Watch | None, interrupt: Interrupt | None) -> int:
    forget, retain, removed = _rows(task)
    model = _model(task)

    def log(step: int, losses: dict[str, float]) -> None:
        write_event(task.log, "step", step=step, **{name: round(loss, 4) for name, loss in losses.items()})
        if watch:
            watch()

    checkpoint = checkpoint_path(task.out)
    unrelated = _checked(task.unrelated, read_rows(task.unrelated.path)) if task.unrelated else []
    care = Care(interrupt=interrupt)
    result = fit(model, forget, retain, task.settings, unrelated=unrelated, checkpoint=checkpoint, watch=log, care=care)
    write_parcel(task.out, parcel(task.id, result, task.settings, _run(result, removed, _since(started))))
    checkpoint.unlink(missing_ok=True)
    return result.resumed


def _run(result: FitResult, removed: int, seconds: float) -> dict[str, Any]:
    return {"seconds": seconds, "curve": result.curve, "resumed_at": result.resumed, "retain_removed": removed}


def _model(task: Task) -> LoadedModel:
    model = load_model(str(task.model), task.device)
    if model.base.fingerprint != task.base:
        raise InputError(
            f"model {str(task.model)!r}: expected {task.base}, found {model.base.fingerprint} on this worker; "
            "give every machine the same files"
        )
    return model


def _rows(task: Task) -> tuple[list[Row], list[Row], int]:
    """Return the rows to forget, those to keep, and how many were taken out of them."""
    forget = _checked(task.forget, read_rows(task.forget.path))
    everything = read_rows(task.retain.path)
    others = [row for file in task.taken_out for row in _checked(file, read_rows(file.path))]
    kept = _checked(task.retain, without(everything, [*forget, *others]))
    return forget, kept, len(everything) - len(kept)


def _checked(file: RowFile, rows: list[Row]) -> list[Row]:
    if digest_rows(rows) != file.digest:
        raise InputError(f"data file {str(file.path)!r}: its rows changed since the batch was planned; plan it again")
    return rows


def describe(error: Exception) -> str:
    """Return an error in one line; of an unexpected one its kind and place alone, for its words may quote a row."""
    if isinstance(error, EulError):
        return " ".join(str(error).split())
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" at {place.tb_frame.f_code.co_name}:{place.tb_lineno}" if place else ""
    return f"unexpected {type(error).__name__}{where}"


def _hopeless(error: Exception) -> bool:
    """Return whether the same work would fail in the same way: wrong input does, a full disk may not."""
    return isinstance(error, EulError) and not isinstance(error, CapacityError | EngineError)


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 1)
