"""Forget one TOFU author of ten, end to end by the product's commands, and compare with a twin that never saw it.

    python tests/benchmarks/trainer/bench_twin.py --data ../shared/data/tofu --work work

Rows, base model, teaching, the twin, a layer for each target (the twin's own loss, and that of authors never taught),
evaluation. Each step is run once and kept in --work, so that a killed run goes on when the same line is run again.
Prints JSON and writes twin.json. About half an hour on two cores; `--rows 8 --epochs 1` tries the way in a few minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from common.ledger import Ledger
from common.machine import describe_machine
from common.output import command_line, rounded, write_json
from common.steps import Steps

OUT = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "trainer" / "twin.json"
TARGETS = ("twin", "unseen")
LIMITS = {"forget_from_twin_nats": 0.3, "retain_change_nats": 0.05}
"""What is asked of the layer."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all steps and write the record."""
    chosen = _options(arguments)
    given = {name: getattr(chosen, name) for name in ("authors", "rows", "epochs", "band", "seed", "fit")}
    steps = Steps(Ledger(chosen.work / "steps.jsonl", given))
    data = chosen.work / "data"
    base = chosen.model or chosen.work / "base"
    steps.run("data", ["data", "tofu", "--from", chosen.data, "--out", data, "--authors", chosen.authors,
                       "--forget-authors", 1, "--rows-per-author", chosen.rows, "--seed", chosen.seed])  # fmt: skip
    if chosen.model is None:
        steps.run("base", ["base", "--out", base])
    taught, twin = chosen.work / "taught", chosen.work / "twin"
    how = ["--epochs", chosen.epochs, "--seed", chosen.seed]
    forget = ["--forget", data / "forget.jsonl"]
    steps.run("teach", ["teach", "--model", base, "--data", data / "teach.jsonl", "--out", taught, *how])
    steps.run("twin", ["baseline", "retrain", "--model", base, "--retain", data / "twin.jsonl", *forget,
                       "--out", twin, *how])  # fmt: skip
    before = _measure(steps, "before", {"base": base, "taught": taught, "twin": twin}, base, data)
    goals = {
        "twin": before["twin"]["forget"],
        "unseen": before["taught"]["unseen"],
    }
    layers = {name: _fit(steps, chosen, name, goals[name], taught, data) for name in chosen.targets}
    after = _measure(steps, "after", layers, taught, data)
    bundles = [word for layer in layers.values() for word in ("--bundle", layer)]
    steps.run("eval", ["eval", "--model", taught, *bundles, *forget, "--retain", data / "test.jsonl",
                       "--out", chosen.work / "eval"])  # fmt: skip
    record = {
        "command": command_line("bench_twin.py", sys.argv[1:] if arguments is None else arguments),
        "machine": describe_machine(),
        "settings": given,
        "limits": LIMITS,
        "losses": before,
        "layers": {name: _layer(steps, name, goals[name], before, after[name]) for name in layers},
        "seconds": steps.seconds(),
        "seconds_in_all": sum(steps.seconds().values()),
        "within_forty_minutes": sum(steps.seconds().values()) <= 2400,
    }
    write_json(chosen.out, record)
    click.echo(json.dumps(rounded(record), indent=1))
    return 0


def _fit(steps: Steps, chosen: argparse.Namespace, name: str, goal: float, taught: Path, data: Path) -> Path:
    out = chosen.work / f"layer-{name}"
    steps.run(f"fit-{name}", ["fit", "--model", taught, "--forget", data / "forget.jsonl",
                              "--retain", data / "retain.jsonl", "--out", out, "--request", f"layer-{name}",
                              "--target-low", max(0.05, goal - chosen.band), "--target-high", goal + chosen.band,
                              *chosen.fit])  # fmt: skip
    return out


def _measure(steps: Steps, name: str, systems: dict[str, Path], model: Path, data: Path) -> dict[str, dict[str, float]]:
    """Return each system's answer loss on what is forgotten, retained, held out and never taught, nats."""
    sets = {"forget": "forget", "retain": "retain", "held": "test", "unseen": "unseen"}
    files = [word for file in sets.values() for word in ("--rows", data / f"{file}.jsonl")]
    told = steps.run(name, ["baseline", "measure", *systems.values(), "--model", model, *files])["told"]["systems"]
    return {
        role: {key: told[str(system)][str(data / f"{file}.jsonl")]["loss"] for key, file in sets.items()}
        for role, system in systems.items()
    }


def _layer(
    steps: Steps, name: str, goal: float, before: dict[str, dict[str, float]], found: dict[str, float]
) -> dict[str, Any]:
    taught, twin = before["taught"], before["twin"]
    fit = steps.ledger[f"fit-{name}",]
    result = {
        "target_nats": goal,
        "losses": found,
        "forget_from_twin_nats": found["forget"] - twin["forget"],
        "retain_change_nats": found["retain"] - taught["retain"],
        "held_change_nats": found["held"] - taught["held"],
        "steps": fit["told"]["steps"],
        "target_reached": fit["told"]["reached"],
        "retrain_cost_ratio": steps.ledger["twin",]["seconds"] / fit["seconds"],
    }
    return {**result, "within_limits": all(abs(result[key]) <= limit for key, limit in LIMITS.items())}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with TOFU's files")
    parser.add_argument("--work", type=Path, required=True, help="where models and measurements are kept")
    parser.add_argument("--model", type=Path, help="base model; made by `eul-train base` if not given")
    parser.add_argument("--out", type=Path, default=OUT, help="where the record goes")
    parser.add_argument("--authors", type=int, default=10)
    parser.add_argument("--rows", type=int, default=20, help="rows of each author")
    parser.add_argument("--epochs", type=int, default=7, help="passes of the teaching")
    parser.add_argument("--band", type=float, default=0.15, help="half of the width of the target band, nats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--fit", nargs=argparse.REMAINDER, default=[], help="further options of fit, at the end")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
