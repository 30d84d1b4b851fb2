"""One point of a sweep: trained where it was not, measured on held-out rows, and recorded last.

`python -m eul_trainer.sweep.point DIR NAME` does it in a process of its own, which ends when the sweep's is gone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eul_serve.errors import EulError
from eul_serve.failure import report
from eul_trainer.fit.run import Watch, fit
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.forward.losses import row_losses
from eul_trainer.forward.runner import Runner
from eul_trainer.model.load import LoadedModel, load_model
from eul_trainer.model.precision import cast
from eul_trainer.output.directory import replace_file
from eul_trainer.output.package import write_parcel
from eul_trainer.output.result import parcel
from eul_trainer.records import Row, digest_rows
from eul_trainer.sweep.choice import Outcome
from eul_trainer.sweep.grid import Point, points
from eul_trainer.sweep.plan import Data, Plan
from eul_trainer.upkeep.care import Care
from eul_trainer.upkeep.checkpoint import checkpoint_path
from eul_trainer.upkeep.identity import Identity, identify
from eul_trainer.upkeep.interrupt import Interrupt, interruptible


def layer_path(folder: Path, point: Point) -> Path:
    """Return where a point's layer is written."""
    return folder / "points" / point.name


def record_path(folder: Path, point: Point) -> Path:
    """Return where a finished point is recorded."""
    return folder / "points" / f"{point.name}.json"


def identity_of(point: Point, data: Data, fingerprint: str) -> Identity:
    """Return what a point's result depends on."""
    found = identify(fingerprint, (data.forget, data.retain, ()), point.settings)
    held = {"held_forget": digest_rows(data.held_forget), "held_retain": digest_rows(data.held_retain)}
    return Identity(settings=found.settings, digests=found.digests | held)


def run_point(
    folder: Path, plan: Plan, point: Point, *, interrupt: Interrupt | None = None, watch: Watch | None = None
) -> Outcome:
    """Train and measure one point.

    Args:
        folder: The sweep's directory.
        plan: The sweep.
        point: The point.
        interrupt: Where the run learns of a signal.
        watch: Told about every step.

    Returns:
        What it gave; a run that diverged is an outcome too.
    """
    started = time.perf_counter()
    data = plan.read()
    model = load_model(plan.model, plan.device)
    identity = identity_of(point, data, model.base.fingerprint)
    cast(model.network, point.settings.dtype)
    before = _losses(model, data)
    care = Care(every=plan.every, interrupt=interrupt)
    path = checkpoint_path(layer_path(folder, point))
    facts: dict[str, Any] = {"name": point.name, "varied": point.varied}
    facts |= {"forget_before": before[0], "retain_before": before[1]}
    try:
        result = fit(model, data.forget, data.retain, point.settings, checkpoint=path, watch=watch, care=care)
    except EulError as error:
        if type(error) is not EulError:  # a file, a disk, memory or a signal: not what the settings led to
            raise
        outcome = Outcome(**facts, failed=str(error))
    else:
        after = _losses(model, data)
        seconds = round(time.perf_counter() - started, 1)
        outcome = Outcome(**facts, forget=after[0], retain=after[1], steps=result.steps, seconds=seconds)
        if not layer_path(folder, point).exists():
            write_parcel(layer_path(folder, point), parcel(plan.request, result, point.settings, {"seconds": seconds}))
    record = {"identity": identity.to_json(), "outcome": outcome.to_json()}
    replace_file(record_path(folder, point), json.dumps(record, indent=2, sort_keys=True) + "\n")
    path.unlink(missing_ok=True)
    return outcome


def _losses(model: LoadedModel, data: Data) -> tuple[float, float]:
    """Return the mean losses on the held-out rows to forget and to keep, of the model as it is now."""
    return _mean(model, data.held_forget), _mean(model, data.held_retain)


def _mean(model: LoadedModel, rows: Sequence[Row]) -> float:
    examples = encode(model.tokenizer, rows, limit=context_limit(model.network))
    losses = row_losses(Runner(model, examples), examples)
    return sum(losses) / len(losses)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: two runs must not write to one checkpoint."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def main(arguments: Sequence[str]) -> int:
    """Run one point of the plan in a directory and return an exit status."""
    _end_with(os.getppid())
    folder, name = Path(arguments[0]), arguments[1]
    try:
        plan = Plan.load(folder)
        point = next(point for point in points(plan.fit, plan.axes) if point.name == name)
        with interruptible() as interrupt:
            run_point(folder, plan, point, interrupt=interrupt)
    except BaseException as error:
        return report(error, program="eul-train", as_json=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
