"""The edge of every call: request id, deadline, metrics, and errors turned into statuses."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TypeVar

import grpc

from eul_serve.metrics import Metrics
from eul_serve.rpc.context import CallContext, Metadata
from eul_serve.rpc.current import ADMIN, CALLER, RECORD, CallRecord
from eul_serve.rpc.denials import Denials
from eul_serve.rpc.details import reason_of, refuse
from eul_serve.rpc.status import code_of, text_of
from eul_serve.trace import Span, server_span

_log = logging.getLogger("eul_serve.rpc")
_calls_log = logging.getLogger("eul_serve.calls")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

Answer = TypeVar("Answer")


def request_id_of(metadata: Metadata | None) -> str:
    """Return the caller's `x-request-id` where it is a plain word, a fresh id otherwise."""
    for key, value in metadata or ():
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)


def trace_of(error: BaseException) -> str:
    """Return where an unexpected error was raised, and its kind; its words may quote a prompt, so they are left out."""
    place = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__}, its text left out; raised at\n{place}"


class Calls:
    """Runs the work of a call and answers for its failures."""

    def __init__(self, metrics: Metrics, deadline_seconds: float, tag: Callable[[str], str]) -> None:
        """Take what every call needs.

        Args:
            metrics: Counts and times them.
            deadline_seconds: The server's longest time for one.
            tag: What the log has in the place of a tenant's name.
        """
        self._metrics = metrics
        self._deadline = deadline_seconds
        self._tag = tag
        self.denials = Denials(metrics)
        """What was turned away."""

    async def answer(
        self, method: str, context: CallContext, work: Awaitable[Answer], *, endless: bool = False
    ) -> Answer:
        """Run one gRPC call.

        Args:
            method: Name of the RPC.
            context: grpc's context of the call.
            work: What the call does.
            endless: Whether it runs until the caller leaves.

        Returns:
            What the work returned; where it failed, the call is aborted with a code and one line.
        """
        metadata = context.invocation_metadata()
        request_id = request_id_of(metadata)
        context.set_trailing_metadata((("x-request-id", request_id),))
        try:
            return await self.run(method, request_id, metadata, work, endless=endless)
        except Exception as error:  # the edge: nothing passes it but a code and one line
            failure = error
        await refuse(context, failure, request_id, self.text(failure, request_id))

    async def run(
        self,
        method: str,
        request_id: str,
        metadata: Metadata | None,
        work: Awaitable[Answer],
        *,
        endless: bool = False,
        system: str = "grpc",
    ) -> Answer:
        """Run one call of any protocol: within the longest time, counted, timed, logged and traced.

        Args:
            method: What metrics and log call it.
            request_id: Its id.
            metadata: What the caller sent, names in lower case.
            work: What the call does.
            endless: Whether it runs until the caller leaves.
            system: The protocol, as traces call it.

        Returns:
            What the work returned.

        Raises:
            Exception: What the work raised; `text` has what the caller may read of it.
        """
        with server_span(method, metadata, system) as span:
            return await self._run(method, request_id, work, endless, span)

    def text(self, failure: BaseException, request_id: str) -> str:
        """Return what a caller reads of a failure: one line, with nothing in it that is not for them."""
        return text_of(failure, request_id, self._deadline)

    async def _run(self, method: str, request_id: str, work: Awaitable[Answer], endless: bool, span: Span) -> Answer:
        started, code, failure = time.monotonic(), grpc.StatusCode.OK, None
        record = CallRecord()
        RECORD.set(record)
        self._metrics.in_flight.inc()
        try:
            async with asyncio.timeout(None if endless else self._deadline):
                return await work
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            failure, code = error, code_of(error)
            self._record(method, error, code, request_id)
            raise
        finally:  # before the caller hears of it, so that a scrape after the call has the call
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(method=method, code=code.name).inc()
            seconds = time.monotonic() - started
            self._metrics.request_seconds.labels(method=method).observe(seconds)
            facts = self._facts(method, request_id, code, seconds, record, failure)
            span.set_attributes({f"eul.{name}": value for name, value in facts.items()})
            _calls_log.info("%s %s", method, code.name, extra={"facts": facts})

    def _facts(
        self,
        method: str,
        request_id: str,
        code: grpc.StatusCode,
        seconds: float,
        record: CallRecord,
        failure: Exception | None,
    ) -> dict[str, str | int | float]:
        """Return what log and trace say: who, by a tag that only this server's key makes, on what, and how it ended."""
        caller, admin = CALLER.get(), ADMIN.get()
        return {
            "code": code.name,
            "decision": "served" if failure is None else reason_of(failure).lower(),
            "method": method,
            "request_id": request_id,
            "seconds": round(seconds, 4),
            "tenant": self._tag(caller.tenant.name) if caller else "",
            **({"administrator": admin} if admin else {}),
            **asdict(record),
        }

    def _record(self, method: str, error: Exception, code: grpc.StatusCode, request_id: str) -> None:
        if code is grpc.StatusCode.INTERNAL:
            _log.error("request %s failed unexpectedly: %s", request_id, trace_of(error))
        caller = CALLER.get()
        self.denials.count(error, method, caller.tenant.name if caller else "")
