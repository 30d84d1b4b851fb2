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
from eul_serve.rpc.admin import AdminServicer, Steering
from eul_serve.rpc.auth import AdminAuthenticator, Authenticator
from eul_serve.rpc.bundles import BundleServicer
from eul_serve.rpc.generation import GenerationServicer
from eul_serve.rpc.server import GrpcServer
from eul_serve.rpc.tenant import TenantServicer
from eul_serve.serve.audited import Auditor
from eul_serve.serve.parts import Parts, assemble
from eul_serve.serve.settings import ServeSettings
from eul_serve.swap.follower import Follower
from eul_serve.swap.policy_source import PolicySource
from eul_serve.swap.residency import Residency

_log = logging.getLogger("eul_serve.serve")
WATCH_SECONDS = 0.5
"""Between two looks at the engine: its death is noticed within a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server that answers."""

    port: int
    """The gRPC port."""
    admin_port: int | None
    """The administrators' port; None where there is none."""
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
    certificates = settings.transport.client_ca is not None
    server = GrpcServer(
        settings.transport, Authenticator(policies, metrics, certificates=certificates), settings.grace_seconds
    )
    port = await server.start(
        {
            "GenerationService": GenerationServicer(parts.calls, parts.runner),
            "BundleService": BundleServicer(parts.calls, parts.registry, parts.residency, policies, parts.feed),
            "TenantService": TenantServicer(parts.calls, parts.leases, settings.limits),
        }
    )
    tasks: list[asyncio.Task[None]] = []
    admin: GrpcServer | None = None
    try:
        admin, admin_port = await _start_admin(settings, parts, server, policies, metrics)
        await parts.follower.poll_registry()
        await parts.follower.settle()
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tasks.append(asyncio.create_task(parts.follower.run(settings.poll_seconds)))
        tasks.append(asyncio.create_task(_watch_engine(engine, min(settings.poll_seconds, WATCH_SECONDS), failed)))
        await server.welcome(not parts.leases.closed)
        yield RunningServer(
            port=port, admin_port=admin_port, follower=parts.follower, residency=parts.residency, failed=failed
        )
    finally:
        parts.feed.end()
        await server.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if admin is not None:
            await admin.stop(0.0)
        await parts.close()
        parts.feed.tell("stop")


async def _start_admin(
    settings: ServeSettings, parts: Parts, server: GrpcServer, policies: PolicySource, metrics: Metrics
) -> tuple[GrpcServer | None, int | None]:
    """Start the administrators' server, where there is an address for it."""
    if settings.admin is None:
        return None, None
    certificates = settings.admin.client_ca is not None
    admin = GrpcServer(
        settings.admin, AdminAuthenticator(policies, metrics, certificates=certificates), settings.grace_seconds
    )
    steering = Steering(
        follower=parts.follower, pins=parts.pins, leases=parts.leases, feed=parts.feed, welcome=server.welcome
    )
    port = await admin.start({"AdminService": AdminServicer(parts.calls, parts.overview, steering)})
    await admin.welcome(True)
    return admin, port


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
