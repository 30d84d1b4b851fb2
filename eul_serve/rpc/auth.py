"""Who calls: the bearer token of the `authorization` metadata against the policy in force.

Health is open to all, so that probes need no secret. Everything else, reflection included, needs a token that the
policy knows; without one a caller cannot even tell which methods exist.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import grpc
import grpc.aio

from eul_serve.errors import IdentityError
from eul_serve.metrics import Metrics
from eul_serve.rpc.calls import request_id_of
from eul_serve.rpc.context import CallContext, CallDetails, Metadata
from eul_serve.rpc.details import trailers
from eul_serve.rpc.status import code_of
from eul_serve.swap.leases import Caller
from eul_serve.swap.policy_source import PolicySource

OPEN_SERVICES = ("/grpc.health.v1.Health/",)

_caller: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """Return who makes the current call."""
    return _caller.get()


def bearer_token(metadata: Metadata | None) -> str | None:
    """Return the token of the only `authorization: Bearer TOKEN` in a call's metadata, None where there is none."""
    found = [value for key, value in metadata or () if key == "authorization"]
    if len(found) != 1 or not isinstance(found[0], str):
        return None
    scheme, _, token = found[0].partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class Authenticator(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Lets a call through with its caller known, or refuses it."""

    def __init__(self, policies: PolicySource, metrics: Metrics) -> None:
        self._policies = policies
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Callable[[CallDetails], Awaitable[grpc.RpcMethodHandler]], call: CallDetails
    ) -> grpc.RpcMethodHandler:
        """Identify the caller; grpc runs this in the call's own task, so the context variable is the call's own."""
        if call.method.startswith(OPEN_SERVICES):
            return await continuation(call)
        policy, token = self._policies.current, bearer_token(call.invocation_metadata)
        try:
            tenant = policy.identify(token)
        except IdentityError as error:
            self._metrics.denials.labels(reason="identity").inc()
            return _refusal(error, request_id_of(call.invocation_metadata))
        assert token is not None, "the policy identifies nobody without a token"
        _caller.set(Caller(tenant=tenant, epoch=policy.epoch, token=token))
        return await continuation(call)


def _refusal(error: IdentityError, request_id: str) -> grpc.RpcMethodHandler:
    async def refuse(requests: object, context: CallContext) -> None:
        await context.abort(code_of(error), str(error), trailers(error, str(error), request_id))

    # This kind of handler answers calls of every kind, and reads nothing of what the caller sent.
    return grpc.stream_stream_rpc_method_handler(refuse)
