"""Half an hour of mixed load: does the server's memory stay flat, and is anything of a request left at its end?

    python tests/benchmarks/service/bench_soak.py [--model MODEL | --fake] [--minutes 30] [--rate 10] \
        [--out docs/benchmarks/service]

The server is `eul serve` in a process of its own, on the tests' tiny model unless --model names another. A client in
another process (loading/mixing.py) sends streams, unary answers, classifications, streams that are cancelled, wrong
tokens, forbidden bundles, and streams whose connection is torn, as an open loop; meanwhile aliases move between two
revisions each. Before it is looked at for the first time, the server has had a warm-up of the same kind.

Flat: a line through the memory (PSS of all processes) over the second half of the time rises by at most two percent of
its mean. Left: what the server holds for requests once nobody asks any more, beyond what it held after the warm-up:
calls, waiting and running requests, leases, places of revisions that no alias points to, requests inside vLLM, and
tasks of the event loop (the server writes their number down at a signal, loading/counted.py; no metric has it).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share
sys.path.append(str(Path(__file__).resolve().parents[3]))  # for the tests' random bundles and homes

import click
from common.entry import guarded
from common.output import deliver
from loading.home import fake_home, grant, model_home, model_of, publish_each
from loading.processes import end_at_sigterm
from loading.record import begun
from loading.samples import Sample, flatness
from loading.servers import Server, Shape, eul_server, paced_server
from loading.soaking import LEAKS, Soak

from tests.eul_serve.service_home import ServiceHome, token_of

BUNDLES = {f"t{number}": f"b{number}" for number in range(4)}
"""The bundle of each tenant."""
OTHER_SEED = 1000
"""Seed of the first bundle's second revision."""
MOST_WARM_SECONDS = 60.0
LEAST_SAMPLES = 8
"""A short soak is looked at more often than --sample-seconds says."""
SETTINGS = ("minutes", "rate", "answer", "swap_seconds", "poll_seconds")


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    engine = parser.add_mutually_exclusive_group()
    engine.add_argument("--model", type=Path, default=None, help="directory of a model; the tests' tiny one without")
    engine.add_argument("--fake", action="store_true", help="an engine without a model")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--answer", type=int, default=24, help="most tokens of an answer")
    parser.add_argument("--swap-seconds", type=float, default=2.0, help="between two moves of an alias")
    parser.add_argument("--sample-seconds", type=float, default=10.0, help="between two looks, at most")
    parser.add_argument("--poll-seconds", type=float, default=0.25)
    parser.add_argument("--out", type=Path, default=None, help="directory for soak.json")
    return parser.parse_args(arguments)


@contextmanager
def served(chosen: argparse.Namespace, root: Path) -> Iterator[tuple[Server, ServiceHome, dict[str, list[str]]]]:
    """Run a server; yield it, its home, and both revisions of every bundle."""
    model = root if chosen.fake else model_of(chosen.model, root)
    home = fake_home(root) if chosen.fake else model_home(root, model, rank=4, scale=1.0)
    revisions = {name: [revision] for name, revision in publish_each(home, len(BUNDLES)).items()}
    for number, (name, both) in enumerate(revisions.items()):
        both.append(home.publish(name, None, seed=OTHER_SEED + number))
    grant(home, BUNDLES)
    start = (
        paced_server(home, chosen.poll_seconds, step=0.005)
        if chosen.fake
        else eul_server(home, Shape(model=model), chosen.poll_seconds)
    )
    with start as server:
        yield server, home, revisions


def run(chosen: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Warm a server up, soak it, and return what was found."""
    seconds = 60 * chosen.minutes
    every = min(chosen.sample_seconds, seconds / LEAST_SAMPLES)
    with served(chosen, root) as (server, home, revisions):
        soak = Soak(server, home, revisions, chosen.swap_seconds)
        tokens = {tenant: token_of(tenant) for tenant in BUNDLES}
        orders = {"tokens": tokens, "rate": chosen.rate, "answer": chosen.answer}
        warm = min(MOST_WARM_SECONDS, seconds / 2)
        warmed = soak.run({**orders, "seed": 0}, warm, warm)
        before = soak.idle()
        soak.samples.clear()
        click.echo("warm", err=True)
        told = soak.run({**orders, "seed": 1}, seconds, every)
        after = soak.idle()
    memory = flatness(soak.samples)
    counts = [kind for each in (warmed, told) for kind in each["kinds"].values()]
    return {
        "asked": sum(kind["asked"] for kind in counts),
        "failed": sum(kind["unexpected"] for kind in counts),
        "swaps": soak.swaps,
        "flat": memory.pop("flat"),
        "leaked": {name: max(0, after[name] - before[name]) for name in LEAKS},
        "memory": memory,
        "kinds": {"warm_up": warmed["kinds"], "soak": told["kinds"]},
        "errors": (warmed["texts"] + told["texts"])[:5],
        "idle": {"before": before, "after": after},
        "samples": {"columns": [one.name for one in fields(Sample)], "rows": [astuple(one) for one in soak.samples]},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    end_at_sigterm()
    with tempfile.TemporaryDirectory() as name:
        found = run(chosen, Path(name).resolve())
    shown = sys.argv[1:] if arguments is None else arguments
    record = {
        **begun("mixed load, and what is left of it", __file__, shown),
        "engine": "fake" if chosen.fake else "tiny model" if chosen.model is None else chosen.model.name,
        **{name: getattr(chosen, name) for name in SETTINGS},
        **found,
    }
    deliver(record, chosen.out, "soak")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
