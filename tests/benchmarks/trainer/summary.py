"""Gather the committed results of the trainer's benchmarks in one file, summary.json.

    python tests/benchmarks/trainer/summary.py [--results docs/benchmarks/trainer]

Copies numbers out of the single files, computes none. What has not been measured yet is null or empty.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from common.output import write_json
from tables.results import headline

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "trainer"
FILES = ("step", "memory", "cost", "fusion", "tofu", "imdb", "samsum")
FUSION = ("seconds", "forget_gap_nats_max", "retain_change_nats")


def gather(folder: Path) -> dict[str, Any]:
    """Return the summary of what is in a folder of results."""
    found = {name: _read(folder / f"{name}.json") for name in FILES}
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


def _read(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args(arguments).results
    summary = gather(folder)
    write_json(folder / "summary.json", summary)
    click.echo(json.dumps(summary, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
