"""The one table from our errors to gRPC codes."""

from __future__ import annotations

import grpc

from eul_serve.errors import (
    BundleFormatError,
    BundleMismatchError,
    CapacityError,
    EngineError,
    IdentityError,
    InputError,
    NotFoundError,
    RefusedError,
)

_CODES: dict[type[BaseException], grpc.StatusCode] = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    BundleFormatError: grpc.StatusCode.INVALID_ARGUMENT,
    BundleMismatchError: grpc.StatusCode.FAILED_PRECONDITION,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    IdentityError: grpc.StatusCode.UNAUTHENTICATED,
    RefusedError: grpc.StatusCode.PERMISSION_DENIED,
    CapacityError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    EngineError: grpc.StatusCode.UNAVAILABLE,
    TimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def code_of(error: BaseException) -> grpc.StatusCode:
    """Return the gRPC code of an error; INTERNAL for everything that is not in the table."""
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)


def text_of(error: BaseException, request_id: str, deadline_seconds: float) -> str:
    """Return what the caller reads.

    Args:
        error: What went wrong.
        request_id: Id of the call, for errors whose text is not sent.
        deadline_seconds: The server's longest time for a call.

    Returns:
        One line. An error that is not in the table may hold anything, so its text stays in the server's log.
    """
    if isinstance(error, TimeoutError):
        return f"the call took longer than the server's {deadline_seconds:g} seconds; ask for fewer tokens"
    if code_of(error) is grpc.StatusCode.INTERNAL:
        return f"internal error; the server's log has it under request id {request_id}"
    return " ".join(str(error).split())
