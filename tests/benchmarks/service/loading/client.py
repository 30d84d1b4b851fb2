"""A client in a process of its own: python -m loading.client, with a plan on the standard input.

It prints a line of JSON for each outcome, and at the end one with the processor's seconds that it took itself. A plan
without a count ends when its standard input does, and its outcomes come while it runs; those of other plans come at
the end, so that writing them takes nothing from what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time

from loading.asking import by_grpc, by_http
from loading.driving import drive
from loading.outcome import Outcome
from loading.plan import Plan

WAYS = {"grpc": by_grpc, "http": by_http}


async def run(plan: Plan) -> None:
    """Carry out a plan."""
    stop, kept = asyncio.Event(), list[Outcome]()
    if plan.count is None:
        loop = asyncio.get_running_loop()
        threading.Thread(target=_watch_input, args=(loop, stop), daemon=True).start()
    async with WAYS[plan.kind](plan) as send:
        begin = time.process_time()
        await drive(plan, send, kept.append if plan.count is not None else _tell, stop)
        seconds = time.process_time() - begin
    for outcome in kept:
        _tell(outcome)
    _write(json.dumps({"processor_seconds": seconds}))


def _watch_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Wait, in a thread, until whoever started this process closes its input."""
    sys.stdin.read()
    loop.call_soon_threadsafe(stop.set)


def _tell(outcome: Outcome) -> None:
    _write(outcome.to_json())


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(run(Plan.from_json(sys.stdin.readline())))
