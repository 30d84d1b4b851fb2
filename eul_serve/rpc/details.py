"""What a refusal tells a program: `google.rpc` details beside the code and the line for people.

Every status has an ErrorInfo with a reason of a closed set. What passes by itself has a RetryInfo; a used-up quota has
a QuotaFailure; a bad field has a BadRequest. gRPC's own push-back makes clients wait by themselves where it is short,
and tells them not to try again where it is not: a caller should hear of half a minute, not hang for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from eul_serve.errors import (
    BundleFormatError,
    BundleMismatchError,
    BusyError,
    CapacityError,
    EngineError,
    IdentityError,
    InputError,
    NotFoundError,
    RefusedError,
)
from eul_serve.rpc.context import CallContext, Metadata
from eul_serve.rpc.status import code_of

DOMAIN = "eul-serve"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
LONGEST_PUSHBACK = 5.0
"""Seconds that a client is told to wait without its caller being asked."""

_REASONS: dict[type[BaseException], str] = {
    InputError: "INVALID_REQUEST",
    BundleFormatError: "INVALID_BUNDLE",
    BundleMismatchError: "OTHER_BASE_MODEL",
    NotFoundError: "NOT_FOUND",
    IdentityError: "UNKNOWN_CALLER",
    RefusedError: "REFUSED_BY_POLICY",
    BusyError: "BUSY",
    CapacityError: "NO_ROOM",
    EngineError: "NOT_SERVED_NOW",
    TimeoutError: "TOOK_TOO_LONG",
}
FIELD = re.compile(r"([a-z_]+(?:\.[a-z_]+)*): ")
"""How our messages about a field of a request begin."""


def reason_of(error: BaseException) -> str:
    """Return the ErrorInfo reason of an error; INTERNAL for everything that is not in the table."""
    return next((_REASONS[kind] for kind in type(error).__mro__ if kind in _REASONS), "INTERNAL")


def trailers(error: BaseException, text: str, request_id: str) -> Metadata:
    """Return the trailing metadata of a refusal.

    Args:
        error: What went wrong.
        text: What the caller reads; no detail says more than this.
        request_id: Id of the call.

    Returns:
        The request id, the details, and where it is worth to try again, the milliseconds until then.
    """
    status = Status(code=code_of(error).value[0], message=text)
    for detail in _details(error, text, request_id):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    found = [("x-request-id", request_id), (DETAILS_KEY, status.SerializeToString())]
    if isinstance(error, CapacityError):
        found.append((PUSHBACK_KEY, str(_pushback(error))))
    return tuple(found)


async def refuse(context: CallContext, error: BaseException, request_id: str, text: str | None = None) -> NoReturn:
    """End a call with a code, a line and details.

    Args:
        context: grpc's context of the call.
        error: What went wrong.
        request_id: Id of the call.
        text: What the caller reads; None is the error's own text.
    """
    line = str(error) if text is None else text
    await context.abort(code_of(error), line, trailers(error, line, request_id))


def _details(error: BaseException, text: str, request_id: str) -> Iterator[Message]:
    yield ErrorInfo(reason=reason_of(error), domain=DOMAIN)
    yield RequestInfo(request_id=request_id)
    if isinstance(error, BusyError):
        yield RetryInfo(retry_delay=_duration(error.retry_seconds))
        yield QuotaFailure(violations=[QuotaFailure.Violation(subject=error.limit, description=text)])
    if isinstance(error, InputError) and (field := FIELD.match(text)):
        violation = BadRequest.FieldViolation(field=field[1], description=text[field.end() :])
        yield BadRequest(field_violations=[violation])


def _pushback(error: CapacityError) -> int:
    """Return the milliseconds after which a client tries again by itself; -1 where it should not."""
    if isinstance(error, BusyError) and error.retry_seconds <= LONGEST_PUSHBACK:
        return _milliseconds(error.retry_seconds)
    return -1


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(_milliseconds(seconds))
    return duration


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
