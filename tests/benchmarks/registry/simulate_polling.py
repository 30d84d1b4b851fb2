"""Thousands of servers that poll one registry: how many requests it gets a second, also when it slows down or is gone.

    python tests/benchmarks/registry/simulate_polling.py [--servers 1000 3000 10000] [--aliases 4] [--poll 1.0] \
        [--seed 0] [--out docs/benchmarks/registry]

A simulation of events, on paper time: every server waits as `eul_serve/swap/pace.py` says, the very code, and its poll
asks for the orders and for each alias, one request each. The registry answers so many requests a second, in turn, and a
request whose turn would come after the timeout is refused. In the first minute it is well; in the second it answers a
tenth of what it is asked for; in the third nothing at all; then it is well again. Every server starts at the same
moment, which is the worst. Beside it stands the same without jitter and without back-off (*in step*): each poll a
second after the last one began.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share
sys.path.append(str(Path(__file__).resolve().parents[3]))

from common.entry import guarded
from common.output import command_line, deliver

from eul_serve.swap.pace import Pace

PHASES = (("well", 1.0), ("slow", 0.1), ("gone", 0.0), ("well again", 1.0))
"""What the registry can answer, as a share of what is asked of it when all is well and a half more."""
PHASE_SECONDS = 60.0
TIMEOUT = 5.0
"""Seconds after which a server gives a request up."""
LATENCY = 0.01
"""Seconds of a request on its way."""
TENTHS = 10
"""Tenths of a second in a second: what comes at once is not seen in whole seconds."""
MONTH = 30 * 24 * 3600
USD_PER_1000 = 0.0004
"""What S3 asks for a thousand GETs (us-east-1, list price)."""


@dataclass(slots=True)
class Registry:
    """Answers requests in turn."""

    usual: float
    """Requests a second that it can answer when it is well."""
    free_at: float = 0.0
    """When it has answered all that it has taken."""
    asked: Counter[int] = field(default_factory=Counter)
    """Requests by the tenth of a second."""

    def ask(self, now: float, count: int) -> tuple[float, bool]:
        """Return how long so many requests take from now on, and whether they were answered."""
        rate = self.usual * PHASES[min(int(now / PHASE_SECONDS), len(PHASES) - 1)][1]
        begins = max(now, self.free_at)
        if not rate or begins + 1 / rate - now > TIMEOUT:
            self.asked[int(now * TENTHS)] += (
                1  # the orders come first; nothing else is asked for where they cannot be read
            )
            return (TIMEOUT if rate else LATENCY), False
        self.asked[int(now * TENTHS)] += count
        self.free_at = begins + count / rate
        return self.free_at - now + LATENCY, True


def main(arguments: Sequence[str] | None = None) -> int:
    shown = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--aliases", type=int, default=4)
    parser.add_argument("--poll", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    record = {
        "what": "requests a second that polls make, simulated",
        "command": command_line(Path(__file__).name, shown, "registry").strip(),
        "aliases": given.aliases,
        "poll_seconds": given.poll,
        "phases": {name: share for name, share in PHASES},
        "servers": {str(count): _compare(count, given.aliases, given.poll, given.seed) for count in given.servers},
    }
    deliver(record, given.out, "polling")
    return 0


def _compare(servers: int, aliases: int, poll: float, seed: int) -> dict[str, Any]:
    on_paper = servers * (aliases + 1) / poll
    usd = on_paper * MONTH / 1000 * USD_PER_1000
    paced, in_step = (_phases(_simulate(servers, aliases, poll, seed, paced)) for paced in (True, False))
    return {"on_paper": on_paper, "s3_usd_a_month": round(usd), "paced": paced, "in_step": in_step}


def _simulate(servers: int, aliases: int, poll: float, seed: int, paced: bool) -> Counter[int]:
    """Return the requests by the tenth of a second."""
    registry = Registry(usual=1.5 * servers * (aliases + 1) / poll)
    paces = [Pace(poll, random.Random(f"{seed}/{server}")) for server in range(servers)]
    # Every server has read everything once at time 0, when it started; what follows are its polls.
    queue = [(pace.first() if paced else poll, server) for server, pace in enumerate(paces)]
    heapq.heapify(queue)
    while queue[0][0] < PHASE_SECONDS * len(PHASES):
        now, server = heapq.heappop(queue)
        seconds, read = registry.ask(now, aliases + 1)
        wait = paces[server].after(seconds, read=read) if paced else max(0.0, poll - seconds)
        heapq.heappush(queue, (now + seconds + wait, server))
    return registry.asked


def _phases(asked: Counter[int]) -> dict[str, dict[str, float]]:
    """Return what each phase's seconds have in the mean, and the most that a tenth of one has."""
    found = {}
    for number, (name, _) in enumerate(PHASES):
        first = int(number * PHASE_SECONDS * TENTHS)
        tenths = [asked[tenth] for tenth in range(first, first + int(PHASE_SECONDS * TENTHS))]
        found[name] = {"a_second": sum(tenths) / PHASE_SECONDS, "most_in_a_tenth": max(tenths)}
    return found


if __name__ == "__main__":
    raise SystemExit(guarded(main))
