"""A gRPC server: transport, health and reflection around some services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from eul_serve.rpc.auth import Authenticator
from eul_serve.rpc.transport import TransportSettings, bind
from eul_serve.v1 import admin_service_pb2_grpc as admin
from eul_serve.v1 import bundle_service_pb2_grpc as bundles
from eul_serve.v1 import generation_service_pb2_grpc as generation
from eul_serve.v1 import tenant_service_pb2_grpc as tenant
from eul_serve.v1.generation_service_pb2 import DESCRIPTOR

PACKAGE = DESCRIPTOR.package
LIVENESS = ""
READINESS = tuple(f"{PACKAGE}.{name}" for name in ("GenerationService", "BundleService"))
"""What a probe asks for."""

_ADDERS: Mapping[str, Callable[[Any, grpc.aio.Server], None]] = {
    "GenerationService": generation.add_GenerationServiceServicer_to_server,
    "BundleService": bundles.add_BundleServiceServicer_to_server,
    "TenantService": tenant.add_TenantServiceServicer_to_server,
    "AdminService": admin.add_AdminServiceServicer_to_server,
}

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # two servers on one port would share the calls
    # A long answer is silent on an idle connection; a client may ping meanwhile, every 10 seconds at most.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)


class GrpcServer:
    """The server; NOT_SERVING until it is made welcome."""

    def __init__(self, settings: TransportSettings, authenticator: Authenticator, grace_seconds: float) -> None:
        self._settings = settings
        self._grace = grace_seconds
        self._health = health.aio.HealthServicer()
        self._names: list[str] = []
        limit = settings.max_message_bytes
        options = (
            *_OPTIONS,
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            ("grpc.max_connection_age_ms", settings.connection_age_seconds * 1000),
            ("grpc.max_connection_age_grace_ms", int(grace_seconds * 1000)),
        )
        self._server = grpc.aio.server(interceptors=(authenticator,), options=options)

    async def start(self, servicers: Mapping[str, Any]) -> int:
        """Listen, alive but not ready.

        Args:
            servicers: What answers, by the short name of the service.

        Returns:
            The port.

        Raises:
            InputError: The address is taken or not ours, or the certificate cannot be read.
        """
        for name, servicer in servicers.items():
            _ADDERS[name](servicer, self._server)
            self._names.append(f"{PACKAGE}.{name}")
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        await self.welcome(False)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        port = bind(self._server, self._settings)
        await self._server.start()
        return port

    async def welcome(self, ready: bool) -> None:
        """Tell probes whether requests are welcome."""
        answer = health_pb2.HealthCheckResponse
        for name in self._names:
            await self._health.set(name, answer.SERVING if ready else answer.NOT_SERVING)

    async def stop(self, grace: float | None = None) -> None:
        """Tell probes that no request is welcome, let those in flight finish within the grace, and stop.

        Args:
            grace: Seconds; None is what the server was made with.
        """
        await self.welcome(False)
        await self._server.stop(self._grace if grace is None else grace)
