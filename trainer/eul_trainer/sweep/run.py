"""All points of a sweep: finished ones are kept, the others are trained, one after the other or side by side."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from eul_serve.errors import EulError, InputError
from eul_serve.format import read_base
from eul_trainer.model.load import resolve
from eul_trainer.sweep.choice import Outcome
from eul_trainer.sweep.grid import Point, points
from eul_trainer.sweep.plan import Data, Plan
from eul_trainer.sweep.point import identity_of, record_path, run_point
from eul_trainer.upkeep.identity import Identity
from eul_trainer.upkeep.interrupt import Interrupt

Told = Callable[[int, str], None]
"""Called with the number of finished points and a few words."""


def sweep(folder: Path, plan: Plan, *, jobs: int = 1, interrupt: Interrupt | None = None, told: Told) -> list[Outcome]:
    """Train and measure every point that is not recorded yet.

    Args:
        folder: The sweep's directory; made where it is not there.
        plan: The sweep.
        jobs: Points that are trained at the same time, each in a process of its own.
        interrupt: Where a run learns of a signal.
        told: Told of every finished point.

    Returns:
        What the points gave, in their order.

    Raises:
        InputError: A recorded point is of other settings or data.
    """
    grid = points(plan.fit, plan.axes)
    data, fingerprint = plan.read(), read_base(resolve(plan.model)).fingerprint
    missing = [point for point in grid if recorded(folder, point, data, fingerprint) is None]
    (folder / "points").mkdir(parents=True, exist_ok=True)
    plan.write(folder)
    told(len(grid) - len(missing), "points were there")
    if jobs == 1:
        for number, point in enumerate(missing, len(grid) - len(missing) + 1):
            outcome = run_point(folder, plan, point, interrupt=interrupt)
            told(number, _words(outcome))
    else:
        _side_by_side(folder, missing, jobs, lambda done: told(len(grid) - len(missing) + done, "points"))
    found = [recorded(folder, point, data, fingerprint) for point in grid]
    return [outcome for outcome in found if outcome is not None]


def recorded(folder: Path, point: Point, data: Data, fingerprint: str) -> Outcome | None:
    """Return what a finished point gave, or None where it is not finished.

    Args:
        folder: The sweep's directory.
        point: The point.
        data: The rows.
        fingerprint: Of the base model.

    Returns:
        The outcome.

    Raises:
        InputError: The record is damaged, or of other settings or data.
    """
    path = record_path(folder, point)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        then, outcome = Identity.from_json(found["identity"]), Outcome(**found["outcome"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"record {str(path)!r}: damaged: {error}; start anew with --fresh") from error
    if changes := identity_of(point, data, fingerprint).changes(then):
        raise InputError(
            f"record {str(path)!r}: this point was trained with other settings or data: {'; '.join(changes)}; restore "
            "them to go on, or start anew with --fresh"
        )
    return outcome


def _side_by_side(folder: Path, missing: Sequence[Point], jobs: int, told: Callable[[int], None]) -> None:
    waiting, running, done = list(missing), list[subprocess.Popen[bytes]](), 0
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                line = [sys.executable, "-m", "eul_trainer.sweep.point", str(folder), waiting.pop(0).name]
                running.append(subprocess.Popen(line))
            time.sleep(0.1)
            ended = [process for process in running if process.poll() is not None]
            running = [process for process in running if process not in ended]
            for process in ended:
                if process.returncode:
                    raise EulError(
                        f"sweep: a point ended with status {process.returncode}, for the reason above; finished points "
                        "are kept, run the line again"
                    )
                done += 1
                told(done)
    finally:
        for process in running:
            process.terminate()  # it saves its run
        for process in running:
            process.wait()


def _words(outcome: Outcome) -> str:
    if outcome.failed is not None:
        return f"{outcome.name}: failed: {outcome.failed}"
    return f"{outcome.name}: forget {outcome.forget:.2f}, retain change {outcome.retain_change:.3f}"
