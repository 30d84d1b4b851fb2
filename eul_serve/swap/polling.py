"""The polls of a server: the policy's at a fixed pace, the registry's at one of its own, or when something woke it."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from eul_serve.registry import Registry
from eul_serve.swap.follower import Follower
from eul_serve.swap.pace import Pace
from eul_serve.swap.watcher import Watcher

_log = logging.getLogger("eul_serve.swap")
LEAST_SECONDS = 0.1
"""Between two polls that events ask for, so that a busy registry does not keep a server busy."""


async def poll_forever(follower: Follower, registry: Registry, poll_seconds: float) -> None:
    """Poll policy and registry until cancelled.

    Args:
        follower: What polls.
        registry: Watched for events, which make a poll come early.
        poll_seconds: Seconds between two polls, at most.
    """
    wake = asyncio.Event()
    watcher = Watcher(registry, wake)
    await asyncio.gather(_policy(follower, poll_seconds), _registry(follower, poll_seconds, wake), watcher.run())


async def _policy(follower: Follower, poll_seconds: float) -> None:
    while True:
        await asyncio.sleep(poll_seconds)
        try:
            await follower.poll_policy()
        except Exception:  # the server goes on with what it has; the next poll may work
            _log.exception("poll of the policy failed")


async def _registry(follower: Follower, poll_seconds: float, wake: asyncio.Event) -> None:
    pace = Pace(poll_seconds)
    wait = pace.first()
    while True:
        await asyncio.sleep(min(wait, LEAST_SECONDS))
        with suppress(TimeoutError):
            await asyncio.wait_for(wake.wait(), max(0.0, wait - LEAST_SECONDS))
        wake.clear()  # before reading: what changes while we read wakes us again
        started, read = time.monotonic(), False
        try:
            read = await follower.poll_registry()
        except Exception:  # as above
            _log.exception("poll of the registry failed")
        wait = pace.after(time.monotonic() - started, read=read)
