"""Builds a server around an engine, and takes it down again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from eul_serve.engine.base import Engine
from eul_serve.errors import EngineError
from eul_serve.metrics import Metrics
from eul_serve.registry import Cache, open_registry
from eul_serve.rpc.auth import Authenticator
from eul_serve.rpc.bundles import BundleServicer
from eul_serve.rpc.calls import Calls
from eul_serve.rpc.generation import GenerationServicer
from eul_serve.rpc.runner import Runner, Traffic
from eul_serve.rpc.salt import Salter
from eul_serve.rpc.server import GrpcServer
from eul_serve.serve.key import server_key
from eul_serve.serve.settings import ServeSettings
from eul_serve.swap.arrival import Store
from eul_serve.swap.follower import Follower
from eul_serve.swap.leases import Leases
from eul_serve.swap.policy_source import PolicySource
from eul_serve.swap.residency import Residency
from eul_serve.traffic import Line, LineLimits, Quotas

_log = logging.getLogger("eul_serve.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server that answers."""

    port: int
    """The gRPC port."""
    follower: Follower
    """Follows registry and policy."""
    residency: Residency
    """What is in the engine."""
    failed: asyncio.Future[None]
    """Ends with the engine's error when the engine dies."""


@asynccontextmanager
async def running(
    settings: ServeSettings, engine: Engine, policies: PolicySource, metrics: Metrics
) -> AsyncIterator[RunningServer]:
    """Run a server on an engine until the context ends; requests in flight may then finish.

    Args:
        settings: The server's settings.
        engine: A started engine; the caller closes it.
        policies: The policy in force.
        metrics: The server's metrics.

    Yields:
        The server, once it has taken up what its policy names.

    Raises:
        InputError: A setting is not acceptable, or the address is taken.
    """
    salter = Salter(server_key(settings.key_file))
    registry, leases = open_registry(settings.registry), Leases(settings.limits)
    store = Store(registry=registry, cache=Cache(settings.cache), fingerprint=engine.info.fingerprint, metrics=metrics)
    residency = Residency(engine, store, metrics)
    follower = Follower(policies, registry, residency, leases, metrics)
    calls = Calls(metrics, settings.deadline_seconds)
    line = Line(LineLimits(running=engine.info.batch, seconds=settings.queue_seconds))
    traffic = Traffic(leases=leases, quotas=Quotas(), line=line)
    runner = Runner(engine, follower, residency, traffic, salter, metrics)
    authenticator = Authenticator(policies, metrics, certificates=settings.transport.client_ca is not None)
    server = GrpcServer(settings.transport, authenticator, settings.grace_seconds)
    port = await server.start(GenerationServicer(calls, runner), BundleServicer(calls, registry, residency))
    tasks: list[asyncio.Task[None]] = []
    try:
        await follower.poll_registry()
        await follower.settle()
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tasks.append(asyncio.create_task(follower.run(settings.poll_seconds)))
        tasks.append(asyncio.create_task(_watch_engine(engine, settings.poll_seconds, failed)))
        await server.ready()
        yield RunningServer(port=port, follower=follower, residency=residency, failed=failed)
    finally:
        await server.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await follower.settle()
        follower.close()
        await residency.close()


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
