"""A thousand bundles on one engine: throughput, time to the first token by where a bundle is, and a load by stage.

    python tests/benchmarks/engine/bench_residency.py --model MODEL [--stored 1000] [--slots 16] [--rank 16] \
        [--requests 64] [--repeats 5] [--out docs/benchmarks/engine]

One engine holds all bundles in host memory. Rounds of traffic by Zipf's law over as many of them as there are slots,
and over all, take turns in a shuffled order; the headline is the median of the rounds' ratios. The first token is timed
on an idle engine: of a bundle in a slot, in host memory alone, and on disk alone (load and all). A load's stages are
set against reading the bundle's files once; a second engine does it for the blocks and width of a model of eight
billion parameters.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share
sys.path.append(str(Path(__file__).resolve().parents[3]))  # for the tests' random bundles

import click
from common.entry import guarded
from common.machine import describe_machine
from common.output import command_line, deliver
from measuring.load import pick
from measuring.stored import Shape, ask, fresh, hollow_model, place, serving, throughput

from eul_serve.engine.base import ResidentBundle

SAMPLES = 20
"""Loads, and first tokens of each kind, that a median is taken of."""


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--stored", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64, help="in flight at the same time")
    parser.add_argument("--answer", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=32, help="of the second engine's model")
    parser.add_argument("--width", type=int, default=4096, help="of the second engine's model")
    parser.add_argument("--out", type=Path, default=None, help="directory for residency.json")
    return parser.parse_args(arguments)


async def measure_stored(chosen: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Return throughput over few and over all, first tokens, and the stages of a load."""
    shape = Shape(
        model=chosen.model, rank=chosen.rank, slots=chosen.slots, capacity=chosen.stored + 1, requests=chosen.requests
    )
    folders = place(root, shape)
    bundles = [fresh(folders[number % len(folders)], chosen.rank) for number in range(chosen.stored)]
    async with serving(shape, root) as engine:
        stages = [await engine.load(bundle) for bundle in bundles]
        click.echo(f"loaded {len(bundles)}", err=True)
        rounds: dict[int, list[float]] = {chosen.slots: [], chosen.stored: []}
        for repeat in range(chosen.repeats + 1):
            for count in random.sample(sorted(rounds), len(rounds)):
                found = await throughput(engine, pick(bundles[:count], chosen.requests, "zipf", repeat), chosen.answer)
                if repeat:  # the first round warms up
                    rounds[count].append(found)
        first = await first_tokens(engine, bundles, folders[0], chosen)
    few, many = rounds[chosen.slots], rounds[chosen.stored]
    return {
        "tokens_per_second": {str(count): statistics.median(found) for count, found in rounds.items()},
        "stored_vs_slots": statistics.median(m / f for m, f in zip(many, few, strict=True)),
        "stored_vs_slots_rounds": [m / f for m, f in zip(many, few, strict=True)],
        "first_token_ms": first,
        "load": loads(stages, folders),
    }


async def first_tokens(
    engine: Any, bundles: list[ResidentBundle], folder: Path, chosen: argparse.Namespace
) -> dict[str, float]:
    """Return the median milliseconds to a first token, by where the bundle is when it is asked for."""
    found: dict[str, list[float]] = {"slot": [], "host": [], "disk": []}
    for number in range(SAMPLES):
        asked = bundles[number % len(bundles)]
        for other in bundles[-chosen.slots :]:  # push it out of its slot
            await ask(engine, other, 1)
        found["host"].append(await ask(engine, asked, 1))
        found["slot"].append(await ask(engine, asked, 1))
        cold, begin = fresh(folder, chosen.rank), time.perf_counter()
        await engine.load(cold)
        await ask(engine, cold, 1)
        found["disk"].append(time.perf_counter() - begin)
        await engine.unload(cold)
    return {kind: 1000 * statistics.median(values) for kind, values in found.items()}


async def measure_wide(chosen: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Return the stages of a load for a wide and deep model, in bfloat16."""
    model = hollow_model(root / "hollow", chosen.model, chosen.blocks, chosen.width)
    shape = Shape(model=model, rank=chosen.rank, slots=2, capacity=4, requests=4, dtype="bfloat16")
    cache = root / "wide"
    cache.mkdir()
    folders = place(cache, shape)
    async with serving(shape, cache) as engine:
        stages = []
        for number in range(SAMPLES):
            bundle = fresh(folders[number % len(folders)], chosen.rank)
            stages.append(await engine.load(bundle))
            await engine.unload(bundle)
    return {"blocks": chosen.blocks, "width": chosen.width, **loads(stages, folders)}


def loads(stages: Sequence[dict[str, float]], folders: Sequence[Path]) -> dict[str, Any]:
    """Return a load's median milliseconds by stage, and how often the bundle's bytes could be read in that time."""
    reading = [_read(folders[number % len(folders)]) for number in range(SAMPLES)]
    milliseconds = {stage: 1000 * statistics.median(one[stage] for one in stages) for stage in stages[0]}
    total, once = sum(milliseconds.values()), 1000 * statistics.median(reading)
    size = sum(path.stat().st_size for path in folders[0].iterdir())
    return {"ms": milliseconds, "read_once_ms": once, "loads_vs_reading": total / once, "bytes": size}


def _read(folder: Path) -> float:
    begin = time.perf_counter()
    for path in folder.iterdir():
        path.read_bytes()
    return time.perf_counter() - begin


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        (root / "cache").mkdir()
        stored = asyncio.run(measure_stored(chosen, root / "cache"))
        wide = asyncio.run(measure_wide(chosen, root))
    shown = sys.argv[1:] if arguments is None else arguments
    record = {
        "what": "many bundles on one engine",
        "command": command_line(Path(__file__).name, shown, "engine"),
        "machine": describe_machine(),
        **{name: getattr(chosen, name) for name in ("stored", "slots", "rank", "requests", "repeats")},
        **stored,
        "load_wide": wide,
    }
    deliver(record, chosen.out, "residency")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
