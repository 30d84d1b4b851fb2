"""Gather the committed results of the trainer's benchmarks: summary.json, and results.md for people.

    python tests/benchmarks/trainer/summary.py [--results docs/benchmarks/trainer]

Copies numbers out of the single files, computes none. What has not been measured yet is null or empty, and not on
the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from common.output import read_json, write_json
from fusing.table import markdown as fusion_table
from tables.results import headline
from tables.results import markdown as task_table

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "trainer"
FILES = ("step", "memory", "cost", "twin", "fusion", "tofu", "imdb", "samsum")
TITLES = {
    "step": "Cost of a training step",
    "memory": "Peak memory",
    "cost": "Cost of a request against retraining",
    "twin": "One author forgotten, beside a twin",
    "fusion": "Fusion",
    "tofu": "TOFU",
    "imdb": "IMDB",
    "samsum": "SAMSum",
}
NUMBERS = ("step_speedup", "peak_memory_ratio", "retrain_cost_ratio")
HEAD = """# Results of the trainer's benchmarks

Made by `tests/benchmarks/trainer/summary.py` out of the files in `trainer/`; change nothing here by hand.
What words and columns mean is said in [the benchmarks' page](README.md).
"""
FUSION = ("seconds", "forget_gap_nats_max", "retain_change_nats")


def gather(folder: Path) -> dict[str, Any]:
    """Return the summary of what is in a folder of results."""
    found = {name: read_json(folder / f"{name}.json") for name in FILES}
    return {
        "step_speedup": found["step"].get("step_speedup"),
        "peak_memory_ratio": found["memory"].get("peak_memory_ratio"),
        "retrain_cost_ratio": found["cost"].get("retrain_cost_ratio", {}),
        "fusion": {
            method: {count: {name: cell[name] for name in FUSION} for count, cell in row.items()}
            for method, row in found["fusion"].get("methods", {}).items()
        },
        **{task: headline(found[task].get("splits", {})) for task in ("tofu", "imdb", "samsum")},
        "scale": {task: found[task]["scale"]["name"] for task in ("tofu", "imdb", "samsum") if found[task]},
        "machine": {name: record["machine"] for name, record in found.items() if "machine" in record},
        "command": {name: record["command"] for name, record in found.items() if "command" in record},
    }


def page(folder: Path) -> str:
    """Return the results as a Markdown page."""
    parts = [HEAD]
    for name, title in TITLES.items():
        record = read_json(folder / f"{name}.json")
        if record:
            parts += [f"## {title}\n", f"    {record['command']}\n", _machine(record["machine"]), _body(name, record)]
    return "\n".join(parts)


def _body(name: str, record: Mapping[str, Any]) -> str:
    if name == "fusion":
        kept = "![forgetting kept against retained change](trainer/fusion.svg)\n"
        return f"Gap is the worst request's and seed's, in nats; retain is the change of held-out loss.\n\n{kept}\n" + (
            fusion_table(record["methods"])
        )
    if name in ("tofu", "imdb", "samsum"):
        return task_table(name, record)
    shown = {key: value for key, value in record.items() if key in NUMBERS}
    return "".join(f"- `{key}`: {json.dumps(value)}\n" for key, value in shown.items())


def _machine(machine: Mapping[str, Any]) -> str:
    where = machine.get("gpu") or f"{machine.get('cores')} cores of {machine.get('processor')}"
    return f"Machine: {where}, {machine.get('memory_gib')} GiB, torch {machine.get('torch')}.\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args(arguments).results
    summary = gather(folder)
    write_json(folder / "summary.json", summary)
    (folder.parent / "results.md").write_text(page(folder), encoding="utf-8")
    click.echo(json.dumps(summary, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
