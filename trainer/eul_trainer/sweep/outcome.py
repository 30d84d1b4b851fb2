"""The end of a sweep: its record, table and picture, and the chosen layer in its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eul_serve.errors import CapacityError, EulError
from eul_serve.format import read_bundle
from eul_trainer.fit.stop import Target
from eul_trainer.output.directory import replace_file, unfinished
from eul_trainer.sweep.choice import RULE, Outcome, choose, pareto, table
from eul_trainer.sweep.plan import Plan
from eul_trainer.sweep.plot import draw


def conclude(folder: Path, out: Path, plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Choose, and write `sweep.json`, `sweep.md`, `sweep.svg`, `sweep.png` and the chosen layer.

    Args:
        folder: The sweep's directory.
        out: Where the chosen layer goes; new or empty.
        plan: The sweep.
        outcomes: What the points gave.

    Returns:
        The record.

    Raises:
        EulError: Every point failed.
        CapacityError: The disk is full; the points are kept.
    """
    target = Target(low=plan.fit.target_low, high=plan.fit.target_high)
    front, chosen = pareto(outcomes, target), choose(outcomes, target)
    if chosen is None:
        raise EulError(f"sweep: all {len(outcomes)} points failed, the first so: {outcomes[0].failed}")
    record: dict[str, Any] = {
        "rule": RULE,
        "target": [target.low, target.high],
        "chosen": chosen.name,
        "pareto": [outcome.name for outcome in front],
        "points": [outcome.to_json() | {"retain_change": _number(outcome.retain_change)} for outcome in outcomes],
    }
    layer = folder / "points" / chosen.name
    record |= {"path": str(out), "revision": read_bundle(layer).revision}
    try:
        replace_file(folder / "sweep.json", json.dumps(record, indent=2, sort_keys=True) + "\n")
        lines = [*table(outcomes, chosen, front), "", f"Chosen: {chosen.name}: {RULE}."]
        replace_file(folder / "sweep.md", "\n".join(lines) + "\n")
        draw([folder / "sweep.svg", folder / "sweep.png"], outcomes, front, target)
    except OSError as error:
        raise CapacityError(f"sweep {str(folder)!r}: cannot write: {error.strerror}; free space") from error
    _copy(layer, out)
    return record


def _number(value: float) -> float | None:
    return value if value < float("inf") else None


def _copy(layer: Path, out: Path) -> None:
    with unfinished(out) as part:
        for path in layer.iterdir():
            (part / path.name).write_bytes(path.read_bytes())
        if out.exists():
            out.rmdir()  # empty, or the command would not have begun
        part.rename(out)
