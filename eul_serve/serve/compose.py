"""Runs a server around an engine, and takes it down again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from eul_serve.audit import AuditLog
from eul_serve.engine.base import Engine
from eul_serve.errors import EngineError
from eul_serve.metrics import Metrics
from eul_serve.serve.audited import Auditor
from eul_serve.serve.fronts import Fronts, Ports
from eul_serve.serve.parts import assemble
from eul_serve.serve.settings import ServeSettings
from eul_serve.swap.follower import Follower
from eul_serve.swap.policy_source import PolicySource
from eul_serve.swap.polling import poll_forever
from eul_serve.swap.residency import Residency

_log = logging.getLogger("eul_serve.serve")
WATCH_SECONDS = 0.5
"""Between two looks at the engine: its death is noticed within a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server that answers."""

    ports: Ports
    """Where it is reached."""
    follower: Follower
    """Follows registry and policy."""
    residency: Residency
    """What is in the engine."""
    failed: asyncio.Future[None]
    """Ends with the engine's error when the engine dies."""


@asynccontextmanager
async def running(
    settings: ServeSettings, engine: Engine, policies: PolicySource, metrics: Metrics, audit: AuditLog | None = None
) -> AsyncIterator[RunningServer]:
    """Run a server on an engine until the context ends; requests in flight may then finish.

    Args:
        settings: The server's settings.
        engine: A started engine; the caller closes it.
        policies: The policy in force.
        metrics: The server's metrics.
        audit: Where decisions are written down; None writes none.

    Yields:
        The server, once it has taken up what its policy names.

    Raises:
        InputError: A setting is not acceptable, or an address is taken.
    """
    parts = assemble(settings, engine, policies, metrics)
    if audit is not None:
        parts.feed.listen(Auditor(audit, metrics))
    parts.feed.tell("start", epoch=policies.current.epoch, base=engine.info.fingerprint)
    fronts = Fronts(settings, parts, policies, metrics)
    tasks: list[asyncio.Task[None]] = []
    try:
        ports = await fronts.start()
        await parts.follower.poll_registry()
        await parts.follower.settle()
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tasks.append(asyncio.create_task(poll_forever(parts.follower, parts.registry, settings.poll_seconds)))
        tasks.append(asyncio.create_task(_watch_engine(engine, min(settings.poll_seconds, WATCH_SECONDS), failed)))
        await fronts.welcome(not parts.leases.closed)
        yield RunningServer(ports=ports, follower=parts.follower, residency=parts.residency, failed=failed)
    finally:
        parts.feed.end()
        await fronts.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await fronts.stop_admin()
        await parts.close()
        parts.feed.tell("stop")


async def _watch_engine(engine: Engine, poll_seconds: float, failed: asyncio.Future[None]) -> None:
    """Notice a dead engine: a server without one must stop, so that somebody starts it again."""
    while True:
        await asyncio.sleep(poll_seconds)
        try:
            await engine.check()
        except EngineError as error:
            _log.error("the engine died: %s", error)
            failed.set_exception(error)
            return
