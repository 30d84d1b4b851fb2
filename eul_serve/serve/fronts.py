"""All that a server listens on: gRPC for tenants and administrators, and HTTP for both where it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from eul_serve.metrics import Metrics
from eul_serve.openai.endpoint import OpenAiEndpoint
from eul_serve.page.recent import Recent
from eul_serve.page.status import CHALLENGE, StatusPage
from eul_serve.rpc.adapters import Adapters
from eul_serve.rpc.admin import AdminServicer, Steering
from eul_serve.rpc.auth import AdminAuthenticator, Authenticator
from eul_serve.rpc.bundles import BundleServicer
from eul_serve.rpc.generation import GenerationServicer
from eul_serve.rpc.server import GrpcServer
from eul_serve.rpc.tenant import TenantServicer
from eul_serve.rpc.transport import TransportSettings
from eul_serve.serve.parts import Parts
from eul_serve.serve.settings import ServeSettings
from eul_serve.swap.policy_source import PolicySource
from eul_serve.web.app import WebApp
from eul_serve.web.callers import administrators, tenants
from eul_serve.web.server import WebServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where a server is reached; None where it does not listen."""

    grpc: int
    """gRPC for tenants."""
    admin: int | None = None
    """gRPC for administrators."""
    openai: int | None = None
    """HTTP for tenants."""
    page: int | None = None
    """HTTP for administrators."""


class Fronts:
    """Starts and stops everything that listens."""

    def __init__(self, settings: ServeSettings, parts: Parts, policies: PolicySource, metrics: Metrics) -> None:
        self._settings, self._parts, self._policies, self._metrics = settings, parts, policies, metrics
        self._grpc = self._server(settings.transport, Authenticator)
        self._admin = self._server(settings.admin, AdminAuthenticator) if settings.admin else None
        self._endpoint = OpenAiEndpoint(parts.runner, Adapters(parts.registry))
        self._webs: list[WebServer] = []

    async def start(self) -> Ports:
        """Listen, not yet welcoming requests.

        Returns:
            The ports.

        Raises:
            InputError: An address is taken or not ours, or a certificate cannot be read.
        """
        parts, settings = self._parts, self._settings
        grpc = await self._grpc.start(
            {
                "GenerationService": GenerationServicer(parts.calls, parts.runner),
                "BundleService": BundleServicer(
                    parts.calls, parts.registry, parts.residency, self._policies, parts.feed
                ),
                "TenantService": TenantServicer(parts.calls, parts.leases, settings.limits),
            }
        )
        return Ports(
            grpc=grpc,
            admin=await self._start_admin(),
            openai=await self._start_openai(settings.openai),
            page=await self._start_page(settings.page),
        )

    async def welcome(self, ready: bool) -> None:
        """Tell probes whether requests are welcome."""
        await self._grpc.welcome(ready)
        self._endpoint.ready = ready

    async def stop(self) -> None:
        """Tell probes that no request is welcome, let those in flight finish within the grace, and stop."""
        await self.welcome(False)
        for web in self._webs:  # each takes no new connection from here on; their grace runs beside gRPC's
            web.shut()
        await self._grpc.stop()
        for web in self._webs:
            await web.stop()

    async def stop_admin(self) -> None:
        """Stop the administrators' server, which stays until everything else has stopped."""
        if self._admin is not None:
            await self._admin.stop(0.0)

    def _server(self, transport: TransportSettings, kind: type[Authenticator]) -> GrpcServer:
        certificates = transport.client_ca is not None
        authenticator = kind(self._policies, self._parts.calls.denials, certificates=certificates)
        return GrpcServer(transport, authenticator, self._settings.grace_seconds)

    async def _start_admin(self) -> int | None:
        if self._admin is None:
            return None
        parts = self._parts
        steering = Steering(
            follower=parts.follower, pins=parts.pins, leases=parts.leases, feed=parts.feed, welcome=self.welcome
        )
        port = await self._admin.start({"AdminService": AdminServicer(parts.calls, parts.overview, steering)})
        await self._admin.welcome(True)
        return port

    async def _start_openai(self, transport: TransportSettings | None) -> int | None:
        if transport is None:
            return None
        limit = transport.max_message_bytes
        app = WebApp(self._endpoint.routes(), tenants(self._policies), self._parts.calls, max_bytes=limit)
        return await self._start_web(transport, app)

    async def _start_page(self, transport: TransportSettings | None) -> int | None:
        if transport is None:
            return None
        recent = Recent()
        self._parts.feed.listen(recent)
        page = StatusPage(self._parts.overview, self._parts.calls.denials, recent, self._metrics)
        app = WebApp(page.routes(), administrators(self._policies), self._parts.calls, challenge=CHALLENGE)
        return await self._start_web(transport, app)

    async def _start_web(self, transport: TransportSettings, app: WebApp) -> int:
        web = WebServer(transport, app, self._settings.grace_seconds)
        self._webs.append(web)
        return await web.start()
