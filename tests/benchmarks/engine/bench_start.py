"""Starting an engine, and the memory of a bundle, against what they cannot be less than.

    python tests/benchmarks/engine/bench_start.py --model MODEL [--ranks 16 160] [--slots 16] [--repeats 3] \
        [--out docs/benchmarks/engine]

Start: seconds until an engine answers its first token, of `eul serve`'s engine (which measures its kernels and proves
itself) and of vLLM's with adapters off, each in a process of its own, in turns. Memory: by how much all processes of an
engine grow when its slots fill, per bundle, against the bytes of its weights: once in host memory and once in a slot.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share
sys.path.append(str(Path(__file__).resolve().parents[3]))  # for the tests' random bundles

import click
import psutil
from common.entry import guarded
from common.machine import describe_machine
from common.output import command_line, deliver, rounded
from measuring.engines import OFF, Setup, running
from measuring.load import Traffic, measure
from measuring.stored import Shape, ask, fresh, place, serving

from eul_serve.engine.memory import bundle_bytes

OURS = "bundles"
WARM = 50
"""Requests before memory is looked at."""


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 160])
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--start", choices=[OURS, OFF], default=None, help="start one engine and print its seconds")
    parser.add_argument("--out", type=Path, default=None, help="directory for start.json")
    return parser.parse_args(arguments)


async def start_one(chosen: argparse.Namespace) -> float:
    """Start one engine in this process and return the seconds until its first token."""
    begin = time.perf_counter()
    rank = chosen.ranks[0]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        if chosen.start == OURS:
            shape = Shape(model=chosen.model, rank=rank, slots=chosen.slots, capacity=chosen.slots + 1, requests=16)
            folder = place(root, shape)[0]
            begin = time.perf_counter()
            async with serving(shape, root) as engine:
                bundle = fresh(folder, rank)
                await engine.load(bundle)
                await ask(engine, bundle, 1)
                return time.perf_counter() - begin
        setup = Setup(model=chosen.model, dtype="float32", slots=chosen.slots, requests=16, threads=0)
        async with running(setup, OFF, rank) as llm:
            await measure(llm, Traffic(requests=1, prompt=8, answer=1), [None], "start")
            return time.perf_counter() - begin


def starts(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of both engines, each start in a new process."""
    found: dict[str, list[float]] = {OURS: [], OFF: []}
    for _ in range(chosen.repeats):
        for kind in random.sample(sorted(found), len(found)):
            words = ["--model", chosen.model, "--ranks", chosen.ranks[0], "--slots", chosen.slots, "--start", kind]
            line = [sys.executable, __file__, *map(str, words)]
            done = subprocess.run(line, check=True, capture_output=True, text=True, timeout=600)
            found[kind].append(float(done.stdout.splitlines()[-1]))
            click.echo(f"start {kind}: {found[kind][-1]:.1f} s", err=True)
    medians = {kind: statistics.median(seconds) for kind, seconds in found.items()}
    return {
        "seconds": medians,
        "least": {kind: min(seconds) for kind, seconds in found.items()},
        "vs_adapters_off": medians[OURS] / medians[OFF],
        "more_seconds": medians[OURS] - medians[OFF],
    }


async def memory(chosen: argparse.Namespace, rank: int, root: Path) -> dict[str, float]:
    """Return bytes by which an engine grows per bundle, beside those of its weights."""
    shape = Shape(model=chosen.model, rank=rank, slots=chosen.slots, capacity=2 * chosen.slots, requests=16)
    folders = place(root, shape)
    more = chosen.slots - 1
    async with serving(shape, root) as engine:
        first = fresh(folders[0], rank)
        await engine.load(first)
        for _ in range(WARM):  # threads, caches and the key-value cache
            await ask(engine, first, 1)
        before = _resident_bytes()
        for number in range(more):
            bundle = fresh(folders[number % len(folders)], rank)
            await engine.load(bundle)
            await ask(engine, bundle, 1)
        grown = (_resident_bytes() - before) / more
    least = bundle_bytes(chosen.model, rank, "float32")
    return {"bytes": grown, "weights_bytes": least, "vs_weights": grown / least}


def _resident_bytes() -> int:
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(process.memory_info().rss for process in processes)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    if chosen.start:
        sys.stdout.write(f"\n{asyncio.run(start_one(chosen))}\n")
        return 0
    grown = {}
    for rank in chosen.ranks:
        with tempfile.TemporaryDirectory() as name:
            grown[str(rank)] = asyncio.run(memory(chosen, rank, Path(name).resolve()))
        click.echo(f"rank {rank}: {rounded(grown[str(rank)])}", err=True)
    shown = sys.argv[1:] if arguments is None else arguments
    record = {
        "what": "starting an engine, and a bundle's memory",
        "command": command_line(Path(__file__).name, shown, "engine"),
        "machine": describe_machine(),
        "slots": chosen.slots,
        "start": starts(chosen),
        "memory_per_bundle": grown,
    }
    deliver(record, chosen.out, "start")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
