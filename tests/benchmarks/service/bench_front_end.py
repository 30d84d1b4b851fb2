"""What the front end can do when the engine costs nothing: our server on a fake engine against gRPC alone.

    python tests/benchmarks/service/bench_front_end.py [--streams 1 100 1000 5000] [--repeats 3] [--seconds 5] \
        [--workers 32] [--out docs/benchmarks/service]

*Ours* is the whole server: callers by token, policy, leases, quotas, line, metrics, revisions; *bare* is a grpc.aio
server of the same method that sends the same messages (loading/bare_server.py). For every number of streams and every
repeat both are started anew, in a shuffled order, each in a process of its own, and one client in another process
(loading/holding.py, the same beside both) holds that many streams open, each with a token a minute. Beside them it asks

    requests  for answers of one token in one message, in a closed loop of --workers
    tokens    for streamed answers of 16 tokens that come as fast as they are sent, in the same loop

and counts those that are answered in --seconds. The client takes processor time too, and on two cores it can be what
limits *bare*: so beside the rates stand the processor's milliseconds that the server itself took for each, which other
processes do not change. The memory of a stream is what the server's process has grown by (PSS) when all streams are
open, divided by their number; with one stream that is mostly chance. Ratios are taken within a repeat.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share
sys.path.append(str(Path(__file__).resolve().parents[3]))  # for the tests' fake engine and homes

import click
from common.entry import guarded
from common.output import deliver, rounded
from loading.home import fake_home, grant, publish_each
from loading.processes import end_at_sigterm, memory_mib, processor_seconds, program, variables
from loading.record import begun, medians, ranges
from loading.samples import metric
from loading.servers import Server, bare_server, paced_server

from eul_serve.errors import EngineError
from tests.eul_serve.service_home import token_of

OURS, BARE = "ours", "bare"
TOKENS = 16
WARM_STREAMS, MOST_WARM_SECONDS = 64, 1.0
RATIOS = {
    "requests_vs_bare": "requests_per_second",
    "tokens_vs_bare": "tokens_per_second",
    "processor_per_request_vs_bare": "processor_ms_per_request",
    "processor_per_token_vs_bare": "processor_ms_per_token",
    "bytes_per_stream_vs_bare": "bytes_per_stream",
}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 100, 1000, 5000], help="open at the same time")
    parser.add_argument("--repeats", type=int, default=3, help="starts of both servers for each number")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each closed loop")
    parser.add_argument("--workers", type=int, default=32, help="of each closed loop")
    parser.add_argument("--settle-seconds", type=float, default=2.0, help="before memory is looked at")
    parser.add_argument("--out", type=Path, default=None, help="directory for front_end.json")
    return parser.parse_args(arguments)


class Client:
    """The client's process, which carries out one order after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.failed = 0
        """Requests that failed in all orders."""
        self.errors: list[str] = []
        """Why the first of them did."""

    def order(self, do: str, **order: Any) -> dict[str, Any]:
        """Have an order carried out and return what it found."""
        assert self._process.stdin is not None, "it was made as a pipe"
        assert self._process.stdout is not None, "it was made as a pipe"
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise EngineError(f"the client's process ended at {do!r} with status {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        self.failed += found["failed"]
        self.errors += found.get("errors", [])
        return found


@contextmanager
def client_of(server: Server) -> Iterator[Client]:
    """Run a client of a server until the context ends."""
    pipe = subprocess.PIPE
    line = program("holding", server.listen, token_of("t0"))
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, env=variables()) as process:
        try:
            yield Client(process)
        finally:
            process.kill()


@contextmanager
def server_of(kind: str) -> Iterator[Server]:
    """Run one of the two servers in a folder of its own until the context ends."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        if kind == BARE:
            with bare_server(root) as server:
                yield server
            return
        home = fake_home(root)
        publish_each(home, 1)
        grant(home, {"t0": "b0"})
        with paced_server(home, poll_seconds=1.0, step=0.0) as server:
            yield server


def measure(chosen: argparse.Namespace, kind: str, streams: int) -> dict[str, Any]:
    """Start a server and return what it does with so many streams open."""
    warm = min(MOST_WARM_SECONDS, chosen.seconds)
    with server_of(kind) as server, client_of(server) as client:
        client.order("hold", streams=WARM_STREAMS)
        client.order("unary", workers=chosen.workers, seconds=warm)
        client.order("stream", workers=chosen.workers, seconds=warm, tokens=TOKENS)
        client.order("drop")
        time.sleep(chosen.settle_seconds)
        before = memory_mib(server.pid)
        opened = client.order("hold", streams=streams)
        time.sleep(chosen.settle_seconds)
        grown = memory_mib(server.pid) - before
        marks = [processor_seconds(server.pid)]
        unary = client.order("unary", workers=chosen.workers, seconds=chosen.seconds)
        marks.append(processor_seconds(server.pid))
        stream = client.order("stream", workers=chosen.workers, seconds=chosen.seconds, tokens=TOKENS)
        marks.append(processor_seconds(server.pid))
        client.order("drop")
        left = still_open(server) if kind == OURS else 0.0
        return {
            "requests_per_second": unary["answers_per_second"],
            "tokens_per_second": stream["tokens_per_second"],
            "processor_ms_per_request": 1000 * (marks[1] - marks[0]) / max(1, unary["answers"]),
            "processor_ms_per_token": 1000 * (marks[2] - marks[1]) / max(1, TOKENS * stream["answers"]),
            "request_p50_ms": unary["p50_ms"],
            "request_p99_ms": unary["p99_ms"],
            "bytes_per_stream": grown * 2**20 / streams,
            "open_seconds": opened["seconds"],
            "failed": client.failed,
            "errors": client.errors[:3],
            "left_open": left,
        }


def still_open(server: Server) -> float:
    """Return the calls that a server still runs after its clients have let go of all, at most ten seconds later."""
    end = time.monotonic() + 10
    while (found := metric(server.scrape(), "eul_in_flight_requests")) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def summed(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what the rounds with one number of streams say: ratios with their range, and both servers' medians."""
    ratios = {
        name: [ours[key] / bare[key] for ours, bare in zip(rounds[OURS], rounds[BARE], strict=True) if bare[key]]
        for name, key in RATIOS.items()
    }
    ratios = {name: values for name, values in ratios.items() if values}
    numbers = {
        kind: {key: [one[key] for one in found] for key in found[0] if key not in ("failed", "errors", "left_open")}
        for kind, found in rounds.items()
    }
    return {
        **medians(ratios),
        "ranges": ranges(ratios),
        **{kind: medians(series) for kind, series in numbers.items()},
        "failed": sum(one["failed"] for found in rounds.values() for one in found),
        "errors": [text for found in rounds.values() for one in found for text in one["errors"]][:3],
        "left_open": sum(one["left_open"] for one in rounds[OURS]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    chosen, found = options(arguments), {}
    end_at_sigterm()
    for streams in chosen.streams:
        rounds: dict[str, list[dict[str, Any]]] = {OURS: [], BARE: []}
        for _ in range(chosen.repeats):
            for kind in random.sample(sorted(rounds), len(rounds)):
                rounds[kind].append(measure(chosen, kind, streams))
        found[str(streams)] = summed(rounds)
        click.echo(f"{streams} streams: {json.dumps(rounded(found[str(streams)]))}", err=True)
    shown = sys.argv[1:] if arguments is None else arguments
    record = {
        **begun("our server on a fake engine against a bare grpc.aio server", __file__, shown),
        **{name: getattr(chosen, name) for name in ("repeats", "seconds", "workers")},
        "answer_tokens": TOKENS,
        "streams": found,
    }
    deliver(record, chosen.out, "front_end")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
