"""How long a server takes over a full registry: its first look at 1,000 aliases, and lists of 10,000 revisions.

    python tests/benchmarks/registry/bench_cold_start.py [--bundles 1000] [--revisions 10000] [--repeats 3] \
        [--out docs/benchmarks/registry]

*cold* is a server on a fake engine over a registry in a directory, with an empty cache, whose policy names all bundles:
from nothing to every alias served. *warm* is the same with the cache that the first one left. A *poll* is one more look
at everything, unchanged.
The fake engine costs nothing, so all of it is ours: reads, hashes, and decisions. *list* and *resolve* are calls of the
registry itself over one name with so many revisions. The registry lies on the machine's temporary directory; its files
are in the system's memory by then, as they are on a server that shares a machine with others.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share
sys.path.append(str(Path(__file__).resolve().parents[3]))  # for the tests' fake engine and homes

from common.entry import guarded
from common.machine import describe_machine
from common.output import command_line, deliver

from eul_serve.format import Reference
from eul_serve.registry.local import LocalRegistry
from tests.eul_serve.conftest import PLAIN_BASE, write_plain_bundle
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import ServiceHome

POLL_SECONDS = 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    shown = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundles", type=int, default=1000)
    parser.add_argument("--revisions", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        record = {
            "what": "seconds of a server's start over published bundles, and of a registry's own calls",
            "command": command_line(Path(__file__).name, shown, "registry").strip(),
            "machine": describe_machine(),
            "cold_start": _starts(Path(place) / "starts", given.bundles, given.repeats),
            "calls": _calls(Path(place) / "calls", given.revisions, given.repeats),
        }
    deliver(record, given.out, "cold_start")
    return 0


def _starts(root: Path, bundles: int, repeats: int) -> dict[str, Any]:
    home = ServiceHome(root, lambda *requests, seed, base: write_plain_bundle(root / "made" / str(seed), seed=seed), "")
    home.fingerprint = PLAIN_BASE
    names = [f"b{number}" for number in range(bundles)]
    with _hasty():
        for seed, name in enumerate(names):
            home.publish(name, "stable", seed=seed)
    home.write_policy(acme={"bundles": names})
    rounds = []
    for repeat in range(repeats):
        home.cache = root / f"cache{repeat}"
        cold, warm = (asyncio.run(_start(home, bundles)) for _ in range(2))
        rounds.append({"cold_seconds": cold["seconds"], "warm_seconds": warm["seconds"], **_rest(cold)})
    return {"bundles": bundles, **_medians(rounds), "rounds": rounds}


@contextmanager
def _hasty() -> Iterator[None]:
    """Wait for no disk while the registry is filled: that is not what is timed."""
    waits, os.fsync = os.fsync, lambda _: None
    try:
        yield
    finally:
        os.fsync = waits


async def _start(home: ServiceHome, bundles: int) -> dict[str, float]:
    """Start a server until everything is served, and look once more."""
    engine = FakeEngine(home.fingerprint, capacity=bundles + 1)
    began = time.monotonic()
    async with home.serve(engine, poll_seconds=POLL_SECONDS, cache=home.cache) as service:
        seconds = time.monotonic() - began
        assert len(engine.loaded) == bundles, "the server serves everything"
        follower = service.server.follower
        polls = []
        for _ in range(5):
            began = time.monotonic()
            await follower.poll_registry()
            polls.append(time.monotonic() - began)
    return {"seconds": seconds, "poll_seconds": statistics.median(polls)}


def _rest(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if name != "seconds"}


def _calls(root: Path, revisions: int, repeats: int) -> dict[str, Any]:
    """Time the calls of a registry over one name with many revisions."""
    registry = LocalRegistry(root / "registry")
    first = write_plain_bundle(root / "made", seed=0)
    registry.publish(first, "poems", "stable")
    folder = root / "registry" / "names" / "poems" / "revisions"
    for number in range(revisions - 1):  # a list reads no manifest, so names are enough
        folder.joinpath(f"{number:064x}.json").touch()
    aliased, exact = Reference.parse("poems:stable"), Reference.parse(f"poems@{first.revision}")
    registry.resolve(aliased)
    timed: dict[str, Callable[[], object]] = {
        "names_ms": registry.names,
        "list_ms": lambda: registry.revisions("poems"),
        "resolve_alias_ms": lambda: registry.resolve(aliased),
        "resolve_revision_ms": lambda: registry.resolve(exact),
        "alias_ms": lambda: registry.alias("poems", "stable"),
        "standing_ms": registry.standing,
    }
    assert len(registry.revisions("poems")) == revisions, "all of them are listed"
    return {"revisions": revisions, **{name: _timed(call, 20 * repeats) for name, call in timed.items()}}


def _timed(call: Callable[[], object], times: int) -> float:
    """Return the median milliseconds of a call."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return 1000 * statistics.median(spent)


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


if __name__ == "__main__":
    raise SystemExit(guarded(main))
