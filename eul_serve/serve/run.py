"""`eul serve` as a process: start, say so, run until a signal, drain."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from eul_serve.address import Address
from eul_serve.audit import AuditLog
from eul_serve.engine.base import Engine
from eul_serve.errors import CapacityError
from eul_serve.format.canary_text import read_texts
from eul_serve.listening import bound
from eul_serve.metrics import Exposition, Metrics
from eul_serve.rpc.transport import TransportSettings
from eul_serve.serve.compose import running
from eul_serve.serve.heap import freeze_heap
from eul_serve.serve.settings import ServeSettings
from eul_serve.swap.policy_source import PolicySource
from eul_serve.whole import replace_whole

StartEngine = Callable[[PolicySource], Awaitable[Engine]]
"""Starts the engine, given the policy that it will serve under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What is told when the server is ready."""

    listen: str
    """Address of the gRPC port."""
    metrics: str
    """Address of the metrics port."""
    admin: str | None
    """Address of the administrators' port; None where there is none."""
    openai: str | None
    """Address of the OpenAI-compatible port; None where there is none."""
    status: str | None
    """Address of the status page; None where there is none."""
    model: str
    """Directory of the base model."""

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None}, sort_keys=True)


async def serve(
    settings: ServeSettings,
    start_engine: StartEngine,
    announce: Callable[[Ready], None],
    registry: CollectorRegistry,
) -> None:
    """Run a server until SIGTERM or SIGINT.

    Args:
        settings: The server's settings.
        start_engine: Starts the engine.
        announce: Told when the server is ready.
        registry: Prometheus registry for our metrics; the default one has vLLM's too.

    Raises:
        EulError: A setting, file or address is not acceptable, or the engine does not start, or died.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = Metrics(registry)
    policies = PolicySource(settings.policy, settings.tokens, metrics)
    if settings.canaries is not None:
        read_texts(settings.canaries, ())  # better said before the engine starts than by the first bundle
    further = (settings.admin, settings.openai, settings.page)
    for address in (settings.transport.listen, settings.metrics_listen, *(one.listen for one in further if one)):
        check_free(address)
    # Ports are bound after the engine has started: its processes would inherit them and keep them when we end.
    engine = await start_engine(policies)
    try:
        listen = settings.metrics_listen
        with (
            Exposition(listen.host, listen.port, metrics.registry) as exposition,
            AuditLog(settings.audit) if settings.audit else nullcontext() as audit,
        ):
            async with running(settings, engine, policies, metrics, audit) as server:
                ready = Ready(
                    listen=str(Address(settings.transport.listen.host, server.ports.grpc)),
                    metrics=str(Address(listen.host, exposition.port)),
                    admin=_told_address(settings.admin, server.ports.admin),
                    openai=_told_address(settings.openai, server.ports.openai),
                    status=_told_address(settings.page, server.ports.page),
                    model=engine.info.model,
                )
                freeze_heap()
                if settings.ready_file:
                    write_whole(settings.ready_file, ready.to_json() + "\n")
                announce(ready)
                await _until(stop, server.failed)
    finally:
        await engine.close()


def _told_address(transport: TransportSettings | None, port: int | None) -> str | None:
    """Return where something listens; None where it does not."""
    return None if transport is None or port is None else str(Address(transport.listen.host, port))


async def _until(stop: asyncio.Event, failed: asyncio.Future[None]) -> None:
    """Return at a signal; raise the engine's error when the engine dies first."""
    waiting = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait((waiting, failed), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if failed in done:
        failed.result()


def check_free(address: Address) -> None:
    """Return when an address can be listened on now: better said before the engine starts than after.

    Args:
        address: The address; any port is free where it is 0.

    Raises:
        InputError: It cannot.
    """
    bound(address).close()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody sees half of it.

    Args:
        path: The file, replaced where it exists.
        text: What it is to hold.

    Raises:
        CapacityError: It cannot be written.
    """
    try:
        replace_whole(path, text)
    except OSError as error:
        raise CapacityError(f"file {str(path)!r}: cannot write: {error.strerror}; name another") from error
