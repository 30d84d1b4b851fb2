"""Rows per second of the full TOFU evaluation, against one row at a time as the published scripts do it, in one run.

    python tests/benchmarks/evidence/bench_evaluation.py --model MODEL --bundle DIR --data ../shared/data/tofu \
        [--chunks 2] [--rows 48] [--tokens 64] [--threads N] [--seed 0] [--out docs/benchmarks/evidence]

product  the evaluator of `eul-train eval`, base model and bundle together
plain    one row at a time (evaluating/plain.py, which says what each piece stands for)

Both measure the same of the same rows, under the base model and under the bundle: loss, memorisation, extraction
strength, what membership inference reads of every token, truth ratio, greedy answer, ROUGE, gibberish. The rows are
drawn from the four files of TOFU's evaluation, in chunks; the ways take turns chunk by chunk, so that a busy machine
slows both. The run ends where they do not find the same. The loading of the model is in neither. A row counts once for
each system. The headline `rows_per_second_ratio` is the median of the chunks, by the processor's seconds: on one thread
those are the clock's on an idle machine, and other work hardly changes them. The ratios by the clock stand beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share

import click
import torch
from common.entry import guarded
from common.machine import describe_machine
from common.output import command_line, rounded, write_json
from evaluating.clock import Clock
from evaluating.compare import Agreement, ratios
from evaluating.plain import PlainEvaluator
from evaluating.product import ProductEvaluator
from evaluating.rows import Chunk, chunks

from eul_trainer.evaluation.systems import Systems, open_bundles
from eul_trainer.model.load import load_model

TOKENS = 64
"""Most tokens of an answer: OpenUnlearning's number. The product's 32 cut 46 % of TOFU's answers off, 64 cut 1 %."""
HEADLINE = ("rows_per_second_ratio", "machine", "command")
"""What the summary has of the record."""


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=2)
    parser.add_argument("--rows", type=int, default=48, help="rows of a chunk")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    return parser.parse_args(arguments)


def measure(systems: Systems, parts: Sequence[Chunk], tokens: int) -> dict[str, Any]:
    """Return seconds and rows per second of both ways, their ratio, and how far their numbers are apart."""
    product, agreement = ProductEvaluator(systems, tokens), Agreement()
    fast: list[Clock] = []
    slow: list[Clock] = []
    for number, chunk in enumerate(parts, 1):
        evaluation, clock = product.evaluate(chunk)
        plain = PlainEvaluator(systems, tokens)
        results = plain.evaluate([row for part in chunk for row in part.rows])
        agreement.add(evaluation, results, plain)
        fast.append(clock)
        slow.append(plain.clock)
        click.echo(
            f"chunk {number}: product {rounded(clock.seconds)}, plain {rounded(plain.clock.seconds)} s", err=True
        )
    rows = sum(len(part.rows) for chunk in parts for part in chunk) * len(systems.revisions)
    ways = {"product": fast, "plain": slow}
    return {
        "ratios": ratios([one.seconds for one in fast], [one.seconds for one in slow]),
        "ratios_by_processor": ratios([one.processor for one in fast], [one.processor for one in slow]),
        "rows_per_second": {
            name: rows / sum(sum(one.processor.values()) for one in clocks) for name, clocks in ways.items()
        },
        "seconds": {name: [one.seconds for one in clocks] for name, clocks in ways.items()},
        "processor": {name: [one.processor for one in clocks] for name, clocks in ways.items()},
        "agreement": agreement.check(),
    }


def run(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    parts = chunks(chosen.data, count=chosen.chunks, size=chosen.rows, seed=chosen.seed)
    model = load_model(chosen.model)
    systems = Systems(model, open_bundles([chosen.bundle], model.base.fingerprint))
    found = measure(systems, parts, chosen.tokens)
    line = command_line("bench_evaluation.py", arguments if arguments is not None else sys.argv[1:], "evidence")
    record = {
        "rows_per_second_ratio": found["ratios_by_processor"]["overall"]["median"],
        **found,
        "rows": {part.name: len(part.rows) * len(parts) for part in parts[0]},
        "systems": len(systems.revisions),
        "tokens": chosen.tokens,
        "machine": describe_machine(),
        "command": line,
    }
    if chosen.out:
        write_json(chosen.out / "evaluation.json", record)
        write_json(chosen.out / "summary.json", {name: record[name] for name in HEADLINE})
    click.echo(json.dumps(rounded(record), indent=1))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
