"""Peak memory of a training run against OpenUnlearning's way, which keeps a second copy of the model as the reference.

    python tests/benchmarks/trainer/bench_memory.py MODEL [--steps 3] [--dtype float32] [--batch-size 16] \
        [--tofu ../shared/data/tofu/full.json] [--out docs/benchmarks/trainer/memory.json]

Each way is a process of its own, and takes the same steps on the same rows: `copied` has the reference as a deepcopy,
`plain` switches the adapter off, `fast` is the trainer, `checkpointed` the trainer with gradient checkpointing, and
`top-10` the trainer with layers on the ten highest blocks. Peak memory is the process's largest resident set, less what
Python and its libraries take. `peak_memory_ratio` is fast to copied.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from common.machine import describe_machine
from common.output import command_line, rounded, write_json
from stepping.plain import PlainTraining
from stepping.rows import TOFU, tofu_rows

from eul_trainer.fit.example_sets import encode_sets
from eul_trainer.fit.training import Training
from eul_trainer.model.load import load_model
from eul_trainer.settings import FitSettings, override

WAYS: dict[str, dict[str, Any]] = {
    "copied": {},
    "plain": {},
    "fast": {},
    "checkpointed": {"checkpointing": True},
    "top-10": {"blocks": "top-10"},
}
MIB = 1024 * 1024
UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes that `ru_maxrss` counts in."""


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tofu", type=Path, default=TOFU)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run_way(chosen: argparse.Namespace) -> dict[str, float]:
    """Take the steps in one way, in this process, and return its peak memory."""
    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows, given = tofu_rows(chosen.tofu), {"batch_size": chosen.batch_size, "dtype": chosen.dtype}
    settings = override(FitSettings(), {**given, **WAYS[chosen.way]})
    model = load_model(chosen.model)
    sets = encode_sets(model, *rows, settings)
    if chosen.way in ("copied", "plain"):
        training: Any = PlainTraining(model, sets, settings, copied=chosen.way == "copied")
    else:
        training = Training(model, sets, settings)
    losses = [training.step(number)["loss"] for number in range(chosen.steps)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_mib": peak * UNIT / MIB, "of_run_mib": (peak - empty) * UNIT / MIB, "loss": losses[-1]}


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(arguments if arguments is not None else sys.argv[1:])
    chosen = options(given)
    if chosen.way:
        click.echo(json.dumps(run_way(chosen)))
        return 0
    found = {way: _in_a_process(given, way) for way in chosen.ways}
    ratio = found["fast"]["of_run_mib"] / found["copied"]["of_run_mib"] if {"fast", "copied"} <= found.keys() else None
    line = command_line("bench_memory.py", given)
    record = {"peak_memory_ratio": ratio, "ways": found, "machine": describe_machine(), "command": line}
    if chosen.out:
        write_json(chosen.out, record)
    click.echo(json.dumps(rounded(record), indent=1))
    return 0


def _in_a_process(given: Sequence[str], way: str) -> dict[str, float]:
    line = [sys.executable, __file__, *given, "--way", way]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
