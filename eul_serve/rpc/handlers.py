"""What is put around every method's handler: a check of the caller, and an answer to bytes that are no message."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
from google.protobuf.message import DecodeError

from eul_serve.errors import InputError
from eul_serve.rpc.calls import request_id_of
from eul_serve.rpc.context import CallContext
from eul_serve.rpc.details import refuse

Check = Callable[[object, CallContext], Awaitable[None]]
"""Returns where a request may go on; ends the call where it may not."""

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
_MALFORMED = object()
"""Stands for a request whose bytes are no message."""


def checked(handler: grpc.RpcMethodHandler | None, check: Check) -> grpc.RpcMethodHandler:
    """Return a handler that checks first.

    Args:
        handler: The method's handler; None where there is no such method, which is told after the check.
        check: What is checked.

    Returns:
        The handler.
    """
    if handler is None:
        handler = grpc.stream_stream_rpc_method_handler(_unimplemented)
    kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
    behaviour = getattr(handler, kind)

    async def answer(request: object, context: CallContext) -> object:
        await check(request, context)
        return await behaviour(request, context)

    async def stream(request: object, context: CallContext) -> AsyncIterator[object]:
        await check(request, context)
        async for message in behaviour(request, context):
            yield message

    return handler._replace(**{kind: stream if inspect.isasyncgenfunction(behaviour) else answer})


def readable(handler: grpc.RpcMethodHandler | None) -> grpc.RpcMethodHandler | None:
    """Return a handler that answers bytes which are no message as bad input; grpc would call them a bug of ours."""
    if handler is None or handler.request_streaming:
        return handler
    read = handler.request_deserializer

    def try_to_read(data: bytes) -> object:
        try:
            return read(data)
        except DecodeError:
            return _MALFORMED

    return checked(handler._replace(request_deserializer=try_to_read), _is_message)


async def _is_message(request: object, context: CallContext) -> None:
    if request is _MALFORMED:
        error = InputError("request: these bytes are no message of this method")
        await refuse(context, error, request_id_of(context.invocation_metadata()))


async def _unimplemented(requests: object, context: CallContext) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!", ())
