"""Who calls: token and client certificate of a call against the policy in force.

Health is open to all, so that probes need no secret. Everything else, reflection included, needs a caller that the
policy knows; nobody else can even tell which methods exist.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

from eul_serve.errors import IdentityError
from eul_serve.identity import Credentials, identify
from eul_serve.identity.bearer import bearer_token
from eul_serve.rpc.calls import request_id_of
from eul_serve.rpc.context import CallContext, CallDetails, Metadata
from eul_serve.rpc.current import ADMIN, CALLER
from eul_serve.rpc.denials import Denials
from eul_serve.rpc.details import refuse
from eul_serve.rpc.handlers import checked, readable
from eul_serve.swap.policy_source import PolicySource

OPEN_SERVICES = ("/grpc.health.v1.Health/",)


def certificate_names(context: CallContext) -> frozenset[str]:
    """Return the alternative names of the client certificate that the transport has verified."""
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return frozenset(name.decode("utf-8", "replace") for name in names)


class Authenticator(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Lets a call through with its caller known, or refuses it."""

    def __init__(self, policies: PolicySource, denials: Denials, *, certificates: bool = False) -> None:
        """Take what decides.

        Args:
            policies: The policy in force.
            denials: Told of refusals.
            certificates: Whether the transport verifies client certificates.
        """
        self._policies = policies
        self._denials = denials
        self._certificates = certificates
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}

    async def intercept_service(
        self, continuation: Callable[[CallDetails], Awaitable[grpc.RpcMethodHandler]], call: CallDetails
    ) -> grpc.RpcMethodHandler:
        """Identify the caller; grpc runs this in the call's own task, so the context variable is the call's own."""
        if call.method.startswith(OPEN_SERVICES):
            return await continuation(call)
        metadata = call.invocation_metadata
        try:
            # A token is checked before anything of the request is read; certificates are known in the handler alone.
            if bearer_token(metadata) or not self._certificates:
                self._identify(call.method, metadata, frozenset())
        except IdentityError as error:
            return _refusal(error, request_id_of(metadata))
        # A method's handler is the same for every call, so it is wrapped once; of unknown ones there are no end.
        if call.method not in self._handlers:
            found = await continuation(call)
            handler = readable(found)
            if self._certificates:
                handler = checked(handler, functools.partial(self._check, call.method))
            if found is None:
                return handler
            self._handlers[call.method] = handler
        return self._handlers[call.method]

    async def _check(self, method: str, request: object, context: CallContext) -> None:
        metadata = context.invocation_metadata()
        try:
            self._identify(method, metadata, certificate_names(context))
        except IdentityError as error:
            await refuse(context, error, request_id_of(metadata))

    def _identify(self, method: str, metadata: Metadata | None, names: frozenset[str]) -> None:
        try:
            self._know(Credentials(token=bearer_token(metadata), names=names))
        except IdentityError as error:
            self._denials.count(error, method.rpartition("/")[2])
            raise

    def _know(self, credentials: Credentials) -> None:
        """Remember the tenant whose call it is."""
        CALLER.set(identify(credentials, self._policies.current, self._policies.ring))


class AdminAuthenticator(Authenticator):
    """Lets administrators through, and nobody else."""

    def _know(self, credentials: Credentials) -> None:
        ADMIN.set(self._policies.current.identify_admin(credentials.token, credentials.names))


def _refusal(error: IdentityError, request_id: str) -> grpc.RpcMethodHandler:
    async def answer(requests: object, context: CallContext) -> None:
        await refuse(context, error, request_id)

    # This kind of handler answers calls of every kind, and reads nothing of what the caller sent.
    return grpc.stream_stream_rpc_method_handler(answer)
