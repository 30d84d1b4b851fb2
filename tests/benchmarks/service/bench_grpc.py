"""Tokens a second and latencies through gRPC, against the same engine called in process and vLLM's OpenAI server.

    python tests/benchmarks/service/bench_grpc.py --model MODEL [--tenants 32] [--bundles 4] [--rounds 7] \
        [--requests 32] [--paced 64] [--load 0.6] [--cores apart] [--out docs/benchmarks/service]

Three systems answer the same work: the same prompts as token ids (new ones in each round, so that no cache answers),
greedy, the same number of tokens (the tokens that end an answer are biased away in all three), streamed, bundles by
Zipf's law over the tenants.

    in process        the engine of `eul serve`, called as the service calls it
    gRPC              that same engine, through the whole server and `eul_serve.client`
    OpenAI over HTTP  `vllm.entrypoints.openai.api_server` with the plugin and the bundles as --lora-modules, an engine
                      with the same settings, asked with aiohttp, which reads as little of each chunk as it can

Both engines live at the same time, and in each round the systems take turns in a shuffled order, so that a busy machine
slows all three; ratios are taken within a round, and the headline is their median. A round has two parts: *burst*, all
--requests at once, for tokens a second; and *paced*, --paced requests as a Poisson process at --load of the speed that
the first burst showed, for latencies, which count from the time at which a request was to be sent.

Ratios are such that more is better: tokens a second over the other's, and the other's latency over gRPC's.

What is fair on two cores: in the field a client is another machine. Here the clients of both servers are processes of
their own, and their time is a cost that the engine called in process does not have. With `--cores apart` (the default)
the engines' threads are bound to the first half of the cores, and the front ends and clients to the other half, as an
engine on a device would leave the processor to them; so what the client takes is charged to its server's front end, in
full, and not to the engine. With `--cores shared` everything runs everywhere, and a token costs the engine what front
end and client take for it. The record has the processor's milliseconds of both for a token, in each system.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share
sys.path.append(str(Path(__file__).resolve().parents[3]))  # for the tests' random bundles and homes

import click
from common.entry import guarded
from common.output import deliver
from loading.asking import in_process
from loading.home import ending_tokens, grant, made, model_home, publish_each
from loading.plan import Plan
from loading.processes import bind, end_at_sigterm
from loading.record import begun, medians, ranges
from loading.servers import Shape, openai_server
from loading.systems import System, called, play, served, share_cores
from prometheus_client import REGISTRY

from eul_serve.engine.orphan import announce_front
from eul_serve.engine.settings import EngineSettings
from eul_serve.metrics import Metrics
from eul_serve.serve.compose import RunningServer, running
from eul_serve.serve.heap import freeze_heap
from eul_serve.swap.policy_source import PolicySource
from tests.eul_serve.service_home import ServiceHome, settings_at

IN_PROCESS, GRPC, HTTP = "in process", "gRPC", "OpenAI over HTTP"
HEADLINES = {"grpc_vs_in_process": IN_PROCESS, "grpc_vs_openai_http": HTTP}
LATENCIES = ("first_token_ms_p50", "first_token_ms_p99", "between_tokens_ms_p50", "between_tokens_ms_p99")
SETTINGS = ("tenants", "bundles", "rank", "dtype", "requests", "paced", "load", "prompt", "answer", "rounds", "cores")
Series = dict[str, dict[str, list[dict[str, Any]]]]
"""Rounds by part and by system."""


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tenants", type=int, default=32)
    parser.add_argument("--bundles", type=int, default=4, help="of all tenants; each has a slot")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--requests", type=int, default=32, help="of a burst, 64 at most")
    parser.add_argument("--paced", type=int, default=64, help="requests of a paced part")
    parser.add_argument("--load", type=float, default=0.6, help="of a paced part, as a share of a burst's speed")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of a prompt")
    parser.add_argument("--answer", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", choices=["apart", "shared"], default="apart")
    parser.add_argument("--without-openai", action="store_true", help="leave vLLM's own server out")
    parser.add_argument("--out", type=Path, default=None, help="directory for grpc.json")
    return parser.parse_args(arguments)


async def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Start both engines, measure, and return what was found."""
    engines, others = share_cores(chosen.cores == "apart", sorted(os.sched_getaffinity(0)))
    if engines != others:
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, engines))
    os.environ |= {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_LOGGING_LEVEL": "WARNING"}
    announce_front()  # engines leave with this process, however it ends
    shape = Shape(
        model=chosen.model.absolute(), slots=chosen.bundles, capacity=2 * chosen.bundles, rank=chosen.rank,
        dtype=chosen.dtype, kv_cache_gib=1.0,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        home = model_home(root, shape.model, chosen.rank, scale=0.01)
        revisions = publish_each(home, chosen.bundles)
        names = {f"t{number}": f"b{number % chosen.bundles}" for number in range(chosen.tenants)}
        tokens = grant(home, names, rights=["logit_bias"])
        systems, never = {}, ending_tokens(shape.model)
        if not chosen.without_openai:
            adapters = {name: made(root, number) for number, name in enumerate(revisions)}
            http = stack.enter_context(openai_server(root, shape, adapters))
            bind(http.pid, others)
            systems[HTTP] = served("http", http.listen, names, http.pid)
        engine, server = await stack.enter_async_context(serving(home, shape))
        bind(os.getpid(), others)
        held = {name: server.residency.entry(revision) for name, revision in revisions.items()}
        bundles = {tenant: held[name].resident for tenant, name in names.items()}
        systems[IN_PROCESS] = called(in_process(engine, bundles, never), names)
        systems[GRPC] = served("grpc", f"127.0.0.1:{server.ports.grpc}", tokens, os.getpid())
        series, rate = await measure(chosen, systems, never)
    return {"engine_cores": engines, "other_cores": others, "paced_requests_per_second": rate, **summed(series)}


@asynccontextmanager
async def serving(home: ServiceHome, shape: Shape) -> AsyncIterator[tuple[Any, RunningServer]]:
    """Run our server on a real engine in this process, with the settings that `eul serve` has by default."""
    from eul_serve.engine.vllm_engine import VllmEngine

    engine = await VllmEngine.start(
        EngineSettings(
            model=shape.model, dtype=shape.dtype, max_context=shape.context, slots=shape.slots, capacity=shape.capacity,
            max_rank=shape.rank, max_batch=shape.batch, bundles=home.cache, kv_cache_gib=shape.kv_cache_gib,
        )
    )  # fmt: skip
    try:
        metrics = Metrics(REGISTRY)
        settings = settings_at(home.root, poll_seconds=1.0)
        async with running(settings, engine, PolicySource(home.policy, None, metrics), metrics) as server:
            freeze_heap()  # as the process of `eul serve` does, and vLLM's own server
            yield engine, server
    finally:
        await engine.close()


async def measure(
    chosen: argparse.Namespace, systems: Mapping[str, System], never: tuple[int, ...]
) -> tuple[Series, float]:
    """Return the rounds of every system, and the rate of the paced parts."""
    burst = Plan(
        address="", callers={}, rate=None, count=chosen.requests, prompt=chosen.prompt, answer=chosen.answer,
        never=never,
    )  # fmt: skip
    for system in systems.values():  # adapters take their slots, and nothing is done for the first time afterwards
        await play(system, replace(burst, seed=1))
    capacity = await play(systems[IN_PROCESS], replace(burst, seed=2))
    rate = chosen.load * capacity["tokens_per_second"] / chosen.answer
    loads = {"burst": burst, "paced": replace(burst, rate=rate, count=chosen.paced)}
    series: Series = {part: {name: [] for name in systems} for part in loads}
    for repeat in range(chosen.rounds):
        for place, (part, load) in enumerate(loads.items()):
            seed = 100 + 2 * repeat + place
            for name in random.sample(sorted(systems), len(systems)):
                series[part][name].append(await play(systems[name], replace(load, seed=seed)))
        speeds = {name: round(rounds[-1]["tokens_per_second"], 1) for name, rounds in series["burst"].items()}
        click.echo(f"round {repeat + 1}: {speeds} tokens a second", err=True)
    return series, rate


def summed(series: Series) -> dict[str, Any]:
    """Return what the rounds say: ratios with their range, and each system's medians."""
    found: dict[str, Any] = {}
    for headline, other in HEADLINES.items():
        if other in series["burst"]:
            ratios = ratios_of(series, other)
            found[headline] = {**medians(ratios), "ranges": ranges(ratios)}
    for part, rounds in series.items():
        numbers = [key for key in rounds[GRPC][0] if key not in ("errors", "failed")]
        found[part] = {
            name: {key: statistics.median(one[key] for one in each) for key in numbers} for name, each in rounds.items()
        }
    every = {name: [one for rounds in series.values() for one in rounds[name]] for name in series["burst"]}
    found["failed"] = {name: sum(one["failed"] for one in each) for name, each in every.items()}
    found["errors"] = {name: [text for one in each for text in one["errors"]][:3] for name, each in every.items()}
    return found


def ratios_of(series: Series, other: str) -> dict[str, list[float]]:
    """Return gRPC's ratios to another system in every round; more is better."""
    mine, theirs = series["burst"][GRPC], series["burst"][other]
    found = {"tokens_per_second": _over(mine, theirs, "tokens_per_second")}
    mine, theirs = series["paced"][GRPC], series["paced"][other]
    for name in LATENCIES:
        found[name.replace("_ms", "")] = _over(theirs, mine, name)
    return found


def _over(upper: list[dict[str, Any]], lower: list[dict[str, Any]], name: str) -> list[float]:
    return [one[name] / two[name] for one, two in zip(upper, lower, strict=True)]


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    end_at_sigterm()
    found = asyncio.run(run(chosen))
    shown = sys.argv[1:] if arguments is None else arguments
    record = {
        **begun("gRPC against the same engine in process, and against vLLM's OpenAI server", __file__, shown),
        **{name: getattr(chosen, name) for name in SETTINGS},
        **found,
    }
    deliver(record, chosen.out, "grpc")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
