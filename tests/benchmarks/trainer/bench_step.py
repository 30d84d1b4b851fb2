"""What a training step costs against a plain loop with the same losses, and how far it is from its floor, in one run.

    python tests/benchmarks/trainer/bench_step.py MODEL [--rows tofu demo] [--dtypes float32 bfloat16] \
        [--blocks all top-10] [--repeats 7] [--tofu ../shared/data/tofu/full.json] [--batch-size 16] [--threads N] \
        [--out docs/benchmarks/trainer/step.json]

plain   a careful loop with transformers and PEFT (stepping/plain.py): a teacher pass in every step, padded rows
fast    the trainer's own step
floor   forward and backward of the trainer's packed activations alone: no head, no losses, no optimiser

All three take the same steps on the same rows, in turn, from the same parameters; the losses of plain and fast are
compared in every step, and the run ends where they differ. Seconds are by the clock; `processor` has those of all
threads, which other work on the machine hardly changes. What the trainer does once before its first step (the teacher's
pass over all rows) is `before_seconds`, and `speedup_of_30_steps` counts it in. The headline `step_speedup` is that of
float32 on TOFU rows, by the clock.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from common.machine import describe_machine
from common.output import command_line, rounded, write_json
from stepping.plain import PlainTraining
from stepping.rows import TOFU, Pair, demo_rows, tofu_rows
from stepping.timing import TOLERANCE, interleaved, summarised

from eul_trainer.fit.example_sets import encode_sets
from eul_trainer.fit.schedule import draw
from eul_trainer.fit.training import Training
from eul_trainer.model.load import load_model
from eul_trainer.settings import FitSettings

RUN = 30
"""Steps over which the work before the first one is shared out."""


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--rows", nargs="+", choices=["tofu", "demo"], default=["tofu", "demo"])
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--blocks", nargs="+", default=["all"], help="also, for example, top-10")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tofu", type=Path, default=TOFU)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None)
    return parser.parse_args(arguments)


def measure(model: str, rows: Pair, settings: FitSettings, repeats: int) -> dict[str, Any]:
    """Return the seconds of a step in every way, and their ratios."""
    first, second = load_model(model), load_model(model)
    plain = PlainTraining(first, encode_sets(first, *rows, settings), settings)
    start = time.perf_counter()
    fast = Training(second, encode_sets(second, *rows, settings), settings)
    before = time.perf_counter() - start
    ways: dict[str, Callable[[int], float | None]] = {
        "plain": lambda number: plain.step(number)["loss"],
        "fast": lambda number: fast.step(number)["loss"],
        "floor": lambda number: activations(fast, number),
    }

    def align() -> None:
        with torch.no_grad():
            for name, parameter in plain.parameters.items():
                parameter.copy_(fast.parameters[name])

    taken, gap = interleaved(ways, repeats, TOLERANCE[settings.dtype], align)
    found = {name: summarised(steps) for name, steps in taken.items()}
    clock, processor = ({name: steps[key] for name, steps in found.items()} for key in ("median", "processor"))
    return {
        **found,
        "loss_gap": f"{gap:.1e}",
        "before_seconds": before,
        "speedup": clock["plain"] / clock["fast"],
        "speedup_by_processor": processor["plain"] / processor["fast"],
        "speedup_of_30_steps": RUN * clock["plain"] / (before + RUN * clock["fast"]),
        "times_floor": clock["fast"] / clock["floor"],
        "times_floor_by_processor": processor["fast"] / processor["floor"],
        "tokens": tokens(fast, plain, repeats),
    }


def activations(fast: Training, number: int) -> None:
    """Run the rows of a step forward and backward through the blocks and layers, and nothing else."""
    rows, _ = fast._rows(draw(fast.settings, number, len(fast.sets.forget), len(fast.sets.retain)))
    fast.runner.hidden(fast.runner.batch(rows)).sum().backward()  # type: ignore[no-untyped-call]  # torch has no type
    fast.optimizer.zero_grad()


def tokens(fast: Training, plain: PlainTraining, repeats: int) -> dict[str, float]:
    """Return the mean number of tokens that a step runs through the blocks, and of answer tokens."""
    padded, packed, answers = [], [], []
    for number in range(1, repeats + 1):
        rows, _ = fast._rows(draw(fast.settings, number, len(fast.sets.forget), len(fast.sets.retain)))
        batch = fast.runner.batch(rows)
        padded.append(len(rows) * max(example.length for example in rows))
        packed.append(0 if batch.packing is None else len(batch.packing.ids))
        answers.append(len(batch.targets))
    found = {"plain": padded, "packed": packed, "answers": answers}
    return {name: statistics.mean(counts) for name, counts in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    rows = {"tofu": lambda: tofu_rows(chosen.tofu), "demo": demo_rows}
    found: dict[str, Any] = {}
    for name in chosen.rows:
        for dtype, blocks in itertools.product(chosen.dtypes, chosen.blocks):
            settings = FitSettings(batch_size=chosen.batch_size, dtype=dtype, blocks=blocks)
            key = dtype if blocks == "all" else f"{dtype}, {blocks}"
            found.setdefault(name, {})[key] = measure(chosen.model, rows[name](), settings, chosen.repeats)
    headline = found.get("tofu", {}).get("float32", {}).get("speedup")
    line = command_line("bench_step.py", arguments if arguments is not None else sys.argv[1:])
    record = {"step_speedup": headline, "rows": found, "machine": describe_machine(), "command": line}
    if chosen.out:
        write_json(chosen.out, record)
    click.echo(json.dumps(rounded(record), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
