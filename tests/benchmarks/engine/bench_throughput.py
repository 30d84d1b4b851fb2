"""Bundles against adapters off and against vLLM's own LoRA, in one run: decode, prefill, and latencies, as ratios.

    python tests/benchmarks/engine/bench_throughput.py --model MODEL [--ranks 8 16 64] [--bundles 1 4 16 64] \
        [--choice even zipf] [--dtype float32] [--instances 5] [--threads N] [--out docs/benchmarks/engine]

Three engines are alive at the same time: `eul serve`'s, vLLM's with its own LoRA layers on the same module (the down
projection) and our plugin off, and vLLM's with adapters off. They take turns in a shuffled order, so that a busy
machine slows all of them alike; the ratio of a round is taken within the round. Two starts of one engine can differ by
a tenth for as long as they live (where their memory happens to lie), so all engines are started anew --instances
times, in a shuffled order, and the headline is the median of the rounds of all of them; vLLM's LoRA, which is far
slower, takes part in the first. A round of decoding is --requests short prompts with --answer tokens each; a round of
prefill is --prompts prompts of --prompt tokens with one token each. With fewer bundles than requests, requests share
them, in turns or by Zipf's law (--choice).

The record is written after every rank; points that a record of the same settings already has are not measured again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share
sys.path.append(str(Path(__file__).resolve().parents[3]))  # for the tests' random bundles

import click
from common.entry import guarded
from common.machine import describe_machine
from common.output import command_line, deliver, read_json, rounded, write_json
from measuring.adapters import make_bundle, make_lora
from measuring.engines import LORA, OFF, OURS, Setup, adapters, running
from measuring.load import Found, Traffic, measure, pick, summary

SETTINGS = ("dtype", "requests", "answer", "prompts", "prompt", "threads")
Series = dict[str, dict[str, list[Found]]]
"""Rounds by what was measured, decode or prefill, and by engine."""
FOLDERS = 4
"""Directories of each kind; adapters beyond that read one of them again, under an id and a slot of their own."""


class Point(NamedTuple):
    """One point of the table."""

    choice: str
    rank: int
    bundles: int


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--bundles", type=int, nargs="+", default=[1, 4, 16, 64], help="in flight at the same time")
    parser.add_argument("--choice", choices=["even", "zipf"], nargs="+", default=["even"])
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--answer", type=int, default=16, help="tokens of an answer when decoding is measured")
    parser.add_argument("--prompts", type=int, default=16, help="prompts when prefill is measured")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of those prompts")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--instances", type=int, default=5, help="how often the engines are started")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each point with each start")
    parser.add_argument("--lora-repeats", type=int, default=2, help="rounds of vLLM's LoRA, with the first start")
    parser.add_argument("--without-lora", action="store_true", help="leave vLLM's LoRA out, which is slow on a CPU")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="directory for throughput.json")
    return parser.parse_args(arguments)


async def run(chosen: argparse.Namespace, command: str) -> dict[str, Any]:
    """Measure every point that is missing; each rank has engines of its own, beside the one with adapters off."""
    record = begun(chosen, command)
    setup = Setup(
        model=chosen.model, dtype=chosen.dtype, slots=max(chosen.bundles), requests=chosen.requests,
        threads=chosen.threads,
    )  # fmt: skip
    wanted = [points for rank in chosen.ranks if (points := missing(chosen, record, rank))]
    if wanted:
        with tempfile.TemporaryDirectory() as name:
            for points in wanted:
                await measure_rank(chosen, setup, points, Path(name).resolve(), record)
    return record


def begun(chosen: argparse.Namespace, command: str) -> dict[str, Any]:
    """Return the record to go on with: what is there where its settings are the same, else an empty one."""
    settings = {
        "what": "bundles against adapters off and vLLM's LoRA of the same rank on the down projection",
        "machine": describe_machine(),
        **{name: getattr(chosen, name) for name in SETTINGS},
    }
    old = {} if chosen.out is None else read_json(chosen.out / "throughput.json")
    if {name: old.get(name) for name in settings} != settings:
        old = {}
    commands = [*old.get("commands", []), command]
    return {**settings, "commands": list(dict.fromkeys(commands)), "points": old.get("points", [])}


def missing(chosen: argparse.Namespace, record: dict[str, Any], rank: int) -> list[Point]:
    """Return the points of a rank that are not measured yet."""
    found = {Point(**{name: point[name] for name in Point._fields}) for point in record["points"]}
    wanted = [Point(choice, rank, count) for count in chosen.bundles for choice in chosen.choice]
    return [point for point in wanted if point not in found and (point.choice == "even" or point.bundles > 1)]


async def measure_rank(
    chosen: argparse.Namespace, setup: Setup, points: list[Point], folder: Path, record: dict[str, Any]
) -> None:
    """Add the points of one rank to the record, and write it."""
    rank, makers = points[0].rank, {OURS: make_bundle, LORA: make_lora}
    folders = {
        kind: [make(folder / str(rank) / kind / str(seed), setup.model, rank, seed) for seed in range(FOLDERS)]
        for kind, make in makers.items()
    }
    series: dict[Point, Series] = {point: {what: {} for what in ("decode", "prefill")} for point in points}
    for instance in range(chosen.instances):
        kinds = [OFF, OURS] if chosen.without_lora or instance else [OFF, OURS, LORA]
        async with AsyncExitStack() as stack:
            engines = {
                kind: await stack.enter_async_context(running(setup, kind, rank))
                for kind in random.sample(kinds, len(kinds))
            }
            for point in points:
                held = {kind: adapters(folders[kind], point.bundles) for kind in kinds if kind != OFF} | {OFF: []}
                await measure_point(chosen, engines, held, point, series[point])
    for point in points:
        found = point._asdict() | point_record(series[point])
        click.echo(json.dumps(rounded({**point._asdict(), **found["ratios"]})), err=True)
        record["points"].append(found)
    if chosen.out is not None:
        write_json(chosen.out / "throughput.json", record)


async def measure_point(
    chosen: argparse.Namespace, engines: dict[str, Any], held: dict[str, list[Any]], point: Point, series: Series
) -> None:
    """Add rounds of decode and prefill of every engine."""
    kinds = {
        "decode": Traffic(requests=chosen.requests, prompt=8, answer=chosen.answer),
        "prefill": Traffic(requests=chosen.prompts, prompt=chosen.prompt, answer=1),
    }
    for repeat in range(chosen.repeats + 1):
        for what, traffic in kinds.items():
            for engine in random.sample(sorted(engines), len(engines)):
                if engine == LORA and repeat > chosen.lora_repeats:
                    continue
                picked = pick(held[engine], traffic.requests, point.choice, repeat)
                name = "-".join(map(str, (*point, what, engine, repeat)))
                result = await measure(engines[engine], traffic, picked, name)
                if repeat:  # the first round loads adapters and warms up
                    series[what].setdefault(engine, []).append(result)


def point_record(series: Series) -> dict[str, Any]:
    """Return what a point's rounds say: ratios with their range, and each engine's numbers."""
    ratios = {
        f"{what}_vs_{'base' if other == OFF else 'lora'}": sorted(
            mine.tokens_per_second / theirs.tokens_per_second
            for mine, theirs in zip(runs[OURS], runs[other], strict=False)
        )
        for what, runs in series.items()
        for other in runs
        if other != OURS
    }
    return {
        "rounds": {engine: len(runs) for engine, runs in series["decode"].items()},
        "ratios": {name: statistics.median(values) for name, values in ratios.items()},
        "ranges": {name: [values[0], values[-1]] for name, values in ratios.items()},
        **{what: {engine: summary(found) for engine, found in runs.items()} for what, runs in series.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    shown = sys.argv[1:] if arguments is None else arguments
    record = asyncio.run(run(chosen, command_line(Path(__file__).name, shown, "engine")))
    deliver(record, chosen.out, "throughput")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
