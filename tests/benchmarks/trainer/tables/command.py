"""The command line that the three tables share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from common.machine import describe_machine
from common.output import command_line, rounded, write_json

from tables.methods import METHODS
from tables.results import cells
from tables.runner import Table
from tables.scale import Scale

OUT = Path(__file__).resolve().parents[4] / "docs" / "benchmarks" / "trainer"


def run_table(task: str, doc: str, scales: Mapping[str, Scale], arguments: Sequence[str] | None = None) -> int:
    """Make a table and write it.

    Args:
        task: tofu, imdb or samsum.
        doc: The script's docstring.
        scales: Its scales by name.
        arguments: The command line; None takes that of the process.

    Returns:
        The exit status.
    """
    chosen = _options(doc, scales, arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    scale = scales[chosen.scale]
    table = Table(
        task=task,
        scale=scale,
        base=chosen.model,
        data=chosen.data,
        work=chosen.work / chosen.scale,
        seeds=chosen.seeds,
        methods=chosen.methods,
        device=chosen.device,
    )
    made = cells(table.run())
    record: dict[str, Any] = {
        "task": task,
        "model": "SmolLM2-135M-Instruct" if chosen.name is None else chosen.name,
        "scale": {"name": scale.name, "rows": scale.note, "fit": dict(scale.fit), "teach": scale.teach.to_json()},
        "command": command_line(f"bench_{task}.py", sys.argv[1:] if arguments is None else arguments),
        "machine": describe_machine(),
        "seeds": chosen.seeds,
        "splits": made,
    }
    write_json(chosen.out / f"{task}.json", record)
    click.echo(json.dumps(rounded(record), indent=1))
    return 0


def _options(doc: str, scales: Mapping[str, Scale], arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory of the model before teaching")
    parser.add_argument("--name", help="what the table calls the model")
    parser.add_argument("--data", type=Path, required=True, help="folder with the task's data")
    parser.add_argument("--work", type=Path, required=True, help="where models and measurements are kept")
    parser.add_argument("--out", type=Path, default=OUT, help="where the table goes")
    parser.add_argument("--scale", choices=list(scales), default="tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(arguments)
