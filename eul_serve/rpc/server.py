"""The gRPC server: transport, health and reflection around the two services."""

from __future__ import annotations

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from eul_serve.rpc.auth import Authenticator
from eul_serve.rpc.bundles import BundleServicer
from eul_serve.rpc.generation import GenerationServicer
from eul_serve.rpc.transport import TransportSettings, bind
from eul_serve.v1 import (
    bundle_service_pb2,
    bundle_service_pb2_grpc,
    generation_service_pb2,
    generation_service_pb2_grpc,
)

GENERATION = generation_service_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name
BUNDLES = bundle_service_pb2.DESCRIPTOR.services_by_name["BundleService"].full_name
READINESS = (GENERATION, BUNDLES)
LIVENESS = ""

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # two servers on one port would share the calls
    # A long answer is silent on an idle connection; a client may ping meanwhile, every 10 seconds at most.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)


class GrpcServer:
    """The server; NOT_SERVING until `ready`."""

    def __init__(self, settings: TransportSettings, authenticator: Authenticator, grace_seconds: float) -> None:
        self._settings = settings
        self._grace = grace_seconds
        self._health = health.aio.HealthServicer()
        limit = settings.max_message_bytes
        options = (
            *_OPTIONS,
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            ("grpc.max_connection_age_ms", settings.connection_age_seconds * 1000),
            ("grpc.max_connection_age_grace_ms", int(grace_seconds * 1000)),
        )
        self._server = grpc.aio.server(interceptors=(authenticator,), options=options)

    async def start(self, generation: GenerationServicer, bundles: BundleServicer) -> int:
        """Listen, alive but not ready.

        Args:
            generation: Answers prompts.
            bundles: Tells about bundles.

        Returns:
            The port.

        Raises:
            InputError: The address is taken or not ours, or the certificate cannot be read.
        """
        generation_service_pb2_grpc.add_GenerationServiceServicer_to_server(generation, self._server)  # type: ignore[no-untyped-call]  # protoc writes no types
        bundle_service_pb2_grpc.add_BundleServiceServicer_to_server(bundles, self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*READINESS, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        await self._set(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        port = bind(self._server, self._settings)
        await self._server.start()
        return port

    async def ready(self) -> None:
        """Tell probes that requests are welcome."""
        await self._set(health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Tell probes that no request is welcome, let those in flight finish within the grace, and stop."""
        await self._set(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.stop(self._grace)

    async def _set(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in READINESS:
            await self._health.set(name, status)
