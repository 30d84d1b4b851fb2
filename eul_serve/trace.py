"""Spans of OpenTelemetry, from a client to the engine; nothing is made of them unless the program sets up an SDK.

A span has names of methods, revisions and numbers of tokens, never a prompt, an answer, a token or a tenant's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

TRACER = trace.get_tracer("eul_serve")

__all__ = ["TRACER", "Span", "client_span", "server_span", "stage_span"]


@contextmanager
def client_span(method: str) -> Iterator[tuple[tuple[str, str], ...]]:
    """Make the span of a call to a server.

    Not the current one: a stream's caller would find it between two pieces.

    Args:
        method: Short name of the RPC.

    Yields:
        Metadata that tells the server whose part its own span is.
    """
    span = TRACER.start_span(f"eul/{method}", kind=SpanKind.CLIENT)
    carrier: dict[str, str] = {}
    propagate.inject(carrier, trace.set_span_in_context(span))
    try:
        yield tuple(carrier.items())
    except Exception as error:
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        span.end()


@contextmanager
def server_span(
    method: str, metadata: Iterable[tuple[str, str | bytes]] | None, system: str = "grpc"
) -> Iterator[Span]:
    """Make the span of a call at the server, as part of the caller's.

    Args:
        method: Short name of the RPC.
        metadata: What the caller sent.
        system: The protocol.

    Yields:
        The span; it is the current one of the call's task.
    """
    carrier = {key: value for key, value in metadata or () if isinstance(value, str)}
    with TRACER.start_as_current_span(
        method, propagate.extract(carrier), SpanKind.SERVER, record_exception=False, set_status_on_exception=False
    ) as span:
        span.set_attribute("rpc.system", system)
        span.set_attribute("rpc.method", method)
        yield span


@contextmanager
def stage_span(name: str) -> Iterator[Span]:
    """Make the span of a part of a call; never current, so that generators may hold it.

    Args:
        name: What is done.

    Yields:
        The span.
    """
    span = TRACER.start_span(name)
    try:
        yield span
    finally:
        span.end()
