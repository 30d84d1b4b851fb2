"""Fuse 2, 5, 10 and 30 requests by every method: seconds, forgetting lost, and change of held-out retained rows.

    eul-train data tofu --from ../shared/data/tofu --authors 50 --requests 30 --out data
    eul-train teach --model base --data data/teach.jsonl --out taught
    python tests/benchmarks/trainer/bench_fusion.py --model taught --data data --work work

Each request's layer is trained once a seed and kept in --work; every measurement is written there at once, so that a
killed run goes on when the same line is run again. Two processes may train layers side by side: give one
`--part 0/2`, the other `--part 1/2`; then run without --part. Prints the table as JSON, and writes fusion.json,
fusion.svg and fusion.png; summary.py makes the page of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from common.entry import guarded
from common.machine import describe_machine
from common.output import command_line, rounded, write_json
from fusing.bench import Bench
from fusing.inputs import HEADLINE
from fusing.methods import METHODS, REFERENCES
from fusing.picture import draw
from fusing.table import over_seeds

OUT = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "trainer"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory of the taught model")
    parser.add_argument("--data", type=Path, required=True, help="what eul-train data tofu --requests K wrote")
    parser.add_argument("--also-retain", type=Path, help="further rows that layers are trained and fused against")
    parser.add_argument("--work", type=Path, required=True, help="where layers and measurements are kept")
    parser.add_argument("--out", type=Path, default=OUT, help="where the table and the picture go")
    parser.add_argument("--requests", type=int, nargs="+", default=[2, 5, 10, 30])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds-largest", type=int, nargs="+", help="seeds for the largest number of requests alone")
    parser.add_argument("--seeds-trained", type=int, nargs="+", help="seeds for what trains as many layers again")
    parser.add_argument("--most-trained", type=int, default=30, help="most requests for those")
    parser.add_argument("--methods", nargs="+", default=[*METHODS, *REFERENCES], choices=[*METHODS, *REFERENCES])
    parser.add_argument("--held-rows", type=int, default=60, help="most held-out rows of a group")
    parser.add_argument("--fit", action="append", default=[], metavar="NAME=VALUE", help="a setting of the training")
    parser.add_argument(
        "--beside", type=Path, help="fusion.json of a run with other layers, to stand in the same table"
    )
    parser.add_argument("--beside-as", default="other layers", help="what is added to the names of its methods")
    parser.add_argument("--part", default="", metavar="I/N", help="train every N-th layer alone, from the I-th")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the measured model")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(arguments)


def run(chosen: argparse.Namespace, command: str) -> dict[str, Any]:
    """Train, fuse and measure whatever is not on disk yet; the table is written after every number of requests."""
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    bench = Bench(chosen)
    bench.train()
    record: dict[str, Any] = {"trained": chosen.part}
    for count in [] if chosen.part else sorted(chosen.requests):
        for seed in bench.seeds(count):
            for method in (name for name in chosen.methods if seed in bench.seeds(count, name)):
                found = bench.measure(seed, count, method)
                click.echo(f"{count} by {method}, seed {seed}: {_words(found)}", err=True)
        record = make_record(bench, count, command)
        write(chosen.out, record)
    return record


def make_record(bench: Bench, largest: int, command: str) -> dict[str, Any]:
    """Return the whole table, of as many requests as were measured."""
    chosen = bench.chosen
    counts = [count for count in sorted(chosen.requests) if count <= largest]
    return {
        "what": "fusion of N requests: forgetting lost against each request's own layer, and held-out retain change",
        "command": command,
        "machine": describe_machine(),
        "requests": counts,
        "seeds": {str(count): bench.seeds(count) for count in counts},
        "rows_per_request": max(len(rows) for rows in bench.inputs.requests.values()),
        "retain_rows": len(bench.inputs.retain),
        "held_rows": {name: len(rows) for name, rows in bench.inputs.held.items()},
        "dtype": chosen.dtype,
        "fit": asdict(bench.settings),
        "own_layers": bench.own_losses(),
        "methods": {method: row for method in chosen.methods if (row := _row(bench, method, counts))} | _beside(chosen),
        "beside": json.loads(chosen.beside.read_text())["fit"] if chosen.beside else None,
    }


def _row(bench: Bench, method: str, counts: Sequence[int]) -> dict[str, Any]:
    """Return a method's cells by number of requests; one that failed with every seed has none."""
    row = {}
    for count in counts:
        found = [bench.measure(seed, count, method) for seed in bench.seeds(count, method)]
        if done := [one for one in found if "failed" not in one]:
            row[str(count)] = {**over_seeds(done), "failed": len(found) - len(done)}
    return row


def _words(found: dict[str, Any]) -> str:
    if "failed" in found:
        return str(found["failed"])
    gap, change = found["forget_gap_nats_max"], found["retain_change_nats"][HEADLINE]
    return f"gap {gap:+.2f}, retain {change:+.3f}, {found['seconds']:.1f} s"


def _beside(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the methods of another run, under names that say whose layers they fuse."""
    other = json.loads(chosen.beside.read_text())["methods"] if chosen.beside else {}
    return {f"{name} ({chosen.beside_as})": row for name, row in other.items()}


def write(out: Path, record: dict[str, Any]) -> None:
    """Write the table and the picture."""
    write_json(out / "fusion.json", record)
    draw(record["methods"], out)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    record = run(chosen, command_line("bench_fusion.py", sys.argv[1:] if arguments is None else arguments))
    click.echo(json.dumps(rounded(record), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
