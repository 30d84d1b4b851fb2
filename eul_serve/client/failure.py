"""From a gRPC status back to our errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from eul_serve.errors import (
    BundleMismatchError,
    BusyError,
    CapacityError,
    EngineError,
    EulError,
    IdentityError,
    InputError,
    NotFoundError,
    RefusedError,
)
from eul_serve.trace import client_span

_KINDS: dict[grpc.StatusCode, type[EulError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InputError,
    grpc.StatusCode.FAILED_PRECONDITION: BundleMismatchError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: IdentityError,
    grpc.StatusCode.PERMISSION_DENIED: RefusedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: CapacityError,
    grpc.StatusCode.UNAVAILABLE: EngineError,
    grpc.StatusCode.DEADLINE_EXCEEDED: EngineError,
}

DETAILS_KEY = "grpc-status-details-bin"
_NOISE = re.compile(r"^failed to connect to all addresses; last error: \w+: \S+ (Failed to connect to remote host: )?")
"""What grpc says before it comes to the point."""


Metadata = tuple[tuple[str, str], ...]
"""Pairs of lower-case key and value."""


class _Call(Protocol):
    """What we use of grpc's error, which is its call."""

    def code(self) -> grpc.StatusCode: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...] | None: ...


@contextmanager
def rpc_errors(address: str) -> Iterator[None]:
    """Turn a failed call into one of our errors.

    Args:
        address: The server's address, for messages.

    Raises:
        EulError: The call failed; its kind follows the status.
    """
    try:
        yield
    except grpc.RpcError as error:
        call = cast(_Call, error)
        code, details = call.code(), " ".join((call.details() or "").split())
        message = _message(address, code, details, _answered(call))
        raise _busy(call, message) or _KINDS.get(code, EulError)(message) from error


@contextmanager
def asking(address: str, method: str) -> Iterator[Metadata]:
    """Make one call: its span, and its failure as one of our errors.

    Args:
        address: The server's address, for messages.
        method: Short name of the RPC.

    Yields:
        Metadata that goes with the call.

    Raises:
        EulError: The call failed.
    """
    with client_span(method) as metadata, rpc_errors(address):
        yield metadata


def _busy(call: _Call, message: str) -> BusyError | None:
    """Return the error of a refusal that passes by itself, with the time to wait; None for every other."""
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            retry, quota = RetryInfo(), QuotaFailure()
            try:
                told = [one for one in Status.FromString(value).details if one.Unpack(retry) or one.Unpack(quota)]
            except DecodeError:  # what is in the way of the server wrote these
                return None
            if told:
                limit = quota.violations[0].subject if quota.violations else ""
                return BusyError(message, limit, retry.retry_delay.ToMilliseconds() / 1000)
    return None


def _message(address: str, code: grpc.StatusCode, details: str, answered: bool) -> str:
    """Return one line with the next step; the server's own words have it, those of grpc have not."""
    if code is grpc.StatusCode.UNAVAILABLE and not answered:
        reason = _NOISE.sub("", details)
        return f"server {address}: not reachable ({reason}); start it with `eul serve`, or check the address and TLS"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not answered:
        return f"server {address}: no answer in time; allow a longer timeout, or ask for fewer tokens"
    if code is grpc.StatusCode.UNAUTHENTICATED or not details:
        return f"server {address}: {details or code.name}"
    return details


def _answered(call: _Call) -> bool:
    """Return whether the server itself sent the status: it puts a request id beside it."""
    return any(key == "x-request-id" for key, _ in call.trailing_metadata() or ())
