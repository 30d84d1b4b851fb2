"""A thousand swaps under load: what fails, what is answered from a wrong revision, and what a reader feels of it.

    python tests/benchmarks/service/bench_swaps.py [--model MODEL | --fake] [--swaps 1000] [--pairs 5] [--rate 10] \
        [--poll-seconds 0.25] [--out docs/benchmarks/service]

The server is `eul serve`, in a process of its own, on the tests' tiny model unless --model names another; it looks at
registry and policy every --poll-seconds (its default is 1 s, which would add up to 0.75 s to every swap, and is
otherwise the same). A client in another process streams answers without end, as an open loop over --tenants tenants by
Zipf's law; the two busiest share the bundle whose alias is moved, the others have bundles of their own. Every move goes
to a revision that the server has never had, so that it pulls, verifies, loads and probes each. Beside the load, one
tenant asks for one token of the moving alias every --probe-seconds, in quiet times too.

Each revision's greedy answer to the load's one prompt is learned beforehand, from a server of its own. An answer is
*wrong* as loading/timeline.py says: it names a revision to which the alias never pointed, or not yet, or not any more
after somebody had been answered by a later one; or its content is not that revision's. It is *late*, which is counted
apart, where it was sent more than a poll and a second after a move had been made and is still of the revision before.
Nothing is tried again: a request that fails once has failed.

In --pairs pairs, intervals of swaps and quiet ones of the same length take turns, the first of a pair being now the
one and now the other. `itl_p99_ratio` is the median over the pairs of the p99 of the time between two pieces of an
answer, as the client sees it, with swaps over without. `seconds` are those from the begin of the registry's act to the
first token that the new revision made for anyone.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share
sys.path.append(str(Path(__file__).resolve().parents[3]))  # for the tests' random bundles and homes

import click
from common.entry import guarded
from common.output import deliver
from loading.home import fake_home, grant, model_home, model_of, publish_each
from loading.judging import Case, durations, judge, latencies, stages
from loading.learning import learn
from loading.load import Load
from loading.moving import Interval, Mover
from loading.plan import Plan
from loading.processes import end_at_sigterm
from loading.record import begun
from loading.servers import Server, Shape, eul_server, paced_server
from loading.timeline import Reference

from eul_serve.errors import EngineError
from tests.eul_serve.service_home import ServiceHome

MOVING = "b0"
"""The bundle whose alias is moved; the tenants t0 and t1 have it."""
LATER_SEED = 1000
"""Seed of the first revision that the alias is moved to."""
SPARE = 0.05
"""Share of revisions more than there are moves: some are left out, as their answers are not the same twice."""
LATE_SECONDS = 1.0
"""Beyond a poll, after which an answer of the revision before is late."""
SETTINGS = ("tenants", "rate", "prompt", "answer", "probe_seconds", "poll_seconds", "rank", "pairs")


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    engine = parser.add_mutually_exclusive_group()
    engine.add_argument("--model", type=Path, default=None, help="directory of a model; the tests' tiny one without")
    engine.add_argument("--fake", action="store_true", help="an engine without a model")
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tenants", type=int, default=4, help="3 or more; the first two have the bundle that moves")
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--prompt", type=int, default=24, help="tokens of the prompt")
    parser.add_argument("--answer", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--probe-seconds", type=float, default=0.02)
    parser.add_argument("--poll-seconds", type=float, default=0.25)
    parser.add_argument("--warm-seconds", type=float, default=10.0, help="of load before the first interval")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--step", type=float, default=0.005, help="seconds for a token, with --fake")
    parser.add_argument("--out", type=Path, default=None, help="directory for swaps.json")
    return parser.parse_args(arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a run needs."""

    home: ServiceHome
    """The registry and the policy."""
    serve: Callable[[str], AbstractContextManager[Server]]
    """Runs a server whose cache has that name."""
    tokens: dict[str, str]
    """Each tenant's token."""
    names: dict[str, str]
    """Each tenant's bundle."""
    first: dict[str, str]
    """Where each bundle's alias points at the beginning."""
    later: list[str]
    """Where the moving one may go."""


def prepare(chosen: argparse.Namespace, root: Path) -> Scene:
    """Publish every revision, and write the policy."""
    model = root if chosen.fake else model_of(chosen.model, root)
    home = fake_home(root) if chosen.fake else model_home(root, model, chosen.rank, scale=1.0)

    def serve(cache: str) -> AbstractContextManager[Server]:
        if chosen.fake:
            return paced_server(home, chosen.poll_seconds, chosen.step, cache)
        return eul_server(home, Shape(model=model), chosen.poll_seconds, cache)

    names = {f"t{number}": f"b{max(0, number - 1)}" for number in range(chosen.tenants)}
    first = publish_each(home, chosen.tenants - 1)
    count = chosen.swaps + math.ceil(SPARE * chosen.swaps)
    later = [home.publish(MOVING, None, seed=LATER_SEED + number) for number in range(count)]
    return Scene(home=home, serve=serve, tokens=grant(home, names), names=names, first=first, later=later)


def learned(chosen: argparse.Namespace, scene: Scene, plan: Plan) -> dict[str, Reference]:
    """Return the answers of the revisions; those under which the load begins are all needed."""
    wanted = {scene.first[name]: (tenant, name) for tenant, name in scene.names.items()}
    wanted |= {revision: ("t0", MOVING) for revision in scene.later}
    with scene.serve("cache-learned") as server:
        found = asyncio.run(learn(server.listen, scene.tokens, wanted, plan.prompt_of(0), chosen.answer))
    if missing := set(scene.first.values()) - found.keys():
        raise EngineError(f"the first revisions {sorted(missing)} do not answer the same twice; choose another --rank")
    if (stable := sum(revision in found for revision in scene.later)) < chosen.swaps:
        raise EngineError(f"{stable} of {len(scene.later)} revisions answer the same twice; {chosen.swaps} are needed")
    click.echo(f"learned {len(found)} of {len(wanted)} revisions", err=True)
    return found


def run(chosen: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Swap under load and return what was found."""
    scene = prepare(chosen, root)
    plan = Plan(
        address="", callers=scene.tokens, rate=chosen.rate, count=None, prompt=chosen.prompt, answer=chosen.answer,
        same_prompt=True, probe="t0", probe_seconds=chosen.probe_seconds,
    )  # fmt: skip
    known = learned(chosen, scene, plan)
    targets = [revision for revision in scene.later if revision in known][: chosen.swaps]
    with scene.serve("cache") as server, Load(replace(plan, address=server.listen)) as load:
        mover = Mover(home=scene.home, name=MOVING, load=load, poll_seconds=chosen.poll_seconds)
        mover.rest(chosen.warm_seconds)
        intervals = take_turns(mover, targets, chosen.pairs)
        outcomes = load.finish()
        scrape = server.scrape()
    case = Case(
        names=scene.names, first=scene.first, moves={MOVING: mover.moves}, references=known,
        late_seconds=chosen.poll_seconds + LATE_SECONDS,
    )  # fmt: skip
    return {
        "count": len(mover.moves),
        **judge(case, outcomes),
        **latencies(intervals, outcomes),
        **durations(mover.moves, outcomes),
        "unseen": mover.unseen,
        "stages_ms": stages(scrape),
        "references": {
            "learned": len(known),
            "left_out": len(scene.first) + len(scene.later) - len(known),
            "different": len(set(known.values())),
        },
    }


def take_turns(mover: Mover, targets: Sequence[str], pairs: int) -> list[Interval]:
    """Move to all targets in pairs of intervals, and return these."""
    found: list[Interval] = []
    for pair in range(pairs):
        share = targets[pair * len(targets) // pairs : (pair + 1) * len(targets) // pairs]
        last = next((one.end - one.begin for one in reversed(found) if one.kind == "swaps"), None)
        found += mover.pair(share, quiet_first=last if pair % 2 else None)
        click.echo(f"pair {pair + 1} of {pairs}: {len(mover.moves)} swaps", err=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    end_at_sigterm()
    with tempfile.TemporaryDirectory() as name:
        found = run(chosen, Path(name).resolve())
    shown = sys.argv[1:] if arguments is None else arguments
    record = {
        **begun("an alias moved again and again under load", __file__, shown),
        "engine": "fake" if chosen.fake else "tiny model" if chosen.model is None else chosen.model.name,
        **{name: getattr(chosen, name) for name in SETTINGS},
        **found,
    }
    deliver(record, chosen.out, "swaps")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
