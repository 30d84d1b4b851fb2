"""The record of a batch: `batch.json`, a page, and lines for a person. Ids, digests and numbers; no text of any row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eul_serve.format import Bundle
from eul_trainer.batch.fused import Effect
from eul_trainer.batch.journal import read_attempts
from eul_trainer.batch.plan import Plan
from eul_trainer.batch.state import write_whole
from eul_trainer.batch.task import Ending, Task
from eul_trainer.evaluation.page import render
from eul_trainer.output.package import versions

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a batch came to."""

    layers: dict[str, Bundle]
    """Finished layers by request."""
    endings: dict[str, Ending]
    """Endings of this call by request."""
    fused: Bundle | None
    """The fused bundle; None where it was not written."""
    effect: Effect | None
    """What it does."""
    unfused: str | None
    """Why there is no fused bundle."""
    seconds: float
    """How long this call took."""


def record(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Return the contents of `batch.json`.

    Args:
        plan: The batch.
        outcome: What it came to.

    Returns:
        Plain JSON.
    """
    fused, effect = outcome.fused, outcome.effect
    return {
        "version": VERSION,
        **plan.facts,
        "requests": [_request(plan, outcome, task) for task in plan.tasks],
        "fused": {
            "revision": fused.revision,
            "requests": [found.id for found in fused.manifest.requests],
            "rank": fused.config.rank,
            "settings": fused.manifest.settings["fusion"],
            "retain_before": _round(effect.retain_before if effect else None),
            "retain_after": _round(effect.retain_after if effect else None),
        }
        if fused
        else None,
        "unfused": outcome.unfused,
        "seconds": round(outcome.seconds, 1),
        "versions": versions(),
    }


def _request(plan: Plan, outcome: Outcome, task: Task) -> dict[str, Any]:
    attempts = read_attempts(task.log)
    layer, ending = outcome.layers.get(task.id), outcome.endings.get(task.id)
    metrics = layer.manifest.metrics if layer else {}
    return {
        "id": task.id,
        "digest": task.forget.digest,
        "rows": len(plan.forget[task.id]),
        "retain_rows": plan.kept[task.id],
        "shared": plan.shared.get(task.id, {}),
        "revision": layer.revision if layer else None,
        "steps": metrics.get("steps"),
        "reached": metrics.get("target_reached"),
        "forget_before": metrics.get("forget_before"),
        "forget_after": metrics.get("forget_after"),
        "forget_fused": _round(outcome.effect.forget.get(task.id) if outcome.effect else None),
        "attempts": [asdict(attempt) for attempt in attempts],
        "seconds": round(sum(attempt.seconds or 0.0 for attempt in attempts), 1),
        "made_now": ending is not None and ending.reason is None,
        "error": ending.reason if ending else None,
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def write_report(folder: Path, found: Mapping[str, Any]) -> None:
    """Write `batch.json` and `batch.html`."""
    write_whole(folder / "batch.json", json.dumps(found, indent=1, sort_keys=True, allow_nan=False) + "\n")
    write_whole(folder / "batch.html", render("batch.html.j2", batch=found))


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return a table for a terminal, one line per request."""
    requests = found["requests"]
    width = max(7, *(len(request["id"]) for request in requests))
    head = f"{'request':{width}}  {'before':>7} {'layer':>7} {'fused':>7} {'steps':>6} {'tries':>5} {'seconds':>8}"
    return [head, *(_line(request, width) for request in requests)]


def _line(request: Mapping[str, Any], width: int) -> str:
    numbers = " ".join(_number(request[f"forget_{name}"]) for name in ("before", "after", "fused"))
    steps = "-" if request["steps"] is None else request["steps"]
    text = f"{request['id']:{width}}  {numbers} {steps:>6} {len(request['attempts']):>5} {request['seconds']:>8.1f}"
    if request["error"]:
        return f"{text}  failed: {request['error']}"
    return text if request["reached"] else f"{text}  target not reached"


def _number(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.2f'):>7}"
