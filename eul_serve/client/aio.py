"""`AsyncClient`: what `Client` does, on an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from eul_serve.client.answers import Answer, BundleAlias, Classification, Part, Tenant
from eul_serve.client.channel import open_async_channel
from eul_serve.client.client import READINESS
from eul_serve.client.failure import Metadata, asking
from eul_serve.client.messages import Prompt, prompt_message, sampling_message
from eul_serve.client.settings import Settings
from eul_serve.v1 import (
    bundle_service_pb2,
    bundle_service_pb2_grpc,
    generation_service_pb2_grpc,
    tenant_service_pb2,
    tenant_service_pb2_grpc,
)
from eul_serve.v1 import generation_service_pb2 as pb


class AsyncClient:
    """One connection to a server; cancelling a task that waits for an answer stops the server's work."""

    def __init__(self, address: str, token: str | None = None, *, settings: Settings | None = None) -> None:
        """Connect lazily, on the running loop.

        Args:
            address: `HOST:PORT`.
            token: Bearer token; only health works without one.
            settings: Further settings; address and token here replace those in it.
        """
        self._settings = settings = replace(settings or Settings(), address=address, token=token)
        self._channel = open_async_channel(settings)
        self._metadata = settings.metadata
        self._generation = generation_service_pb2_grpc.GenerationServiceStub(self._channel)  # type: ignore[no-untyped-call]  # protoc writes no types
        self._bundles = bundle_service_pb2_grpc.BundleServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._tenants = tenant_service_pb2_grpc.TenantServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def address(self) -> str:
        """Where the server is, `HOST:PORT`."""
        return self._settings.address

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def generate(self, prompt: Prompt, *, adapter: str = "", **sampling: Any) -> Answer:  # noqa: ANN401  # as pb.Sampling
        """Answer a prompt.

        Args:
            prompt: Text, token ids, or messages.
            adapter: Empty for the tenant's default, `name`, `name:alias`, `name@sha256:...`, or `base`.
            **sampling: Fields of `eul_serve.v1.Sampling`.

        Returns:
            The answer.

        Raises:
            EulError: The server refused or failed; see `eul_serve.errors`.
        """
        request = pb.GenerateRequest(
            prompt=prompt_message(prompt), adapter=adapter, sampling=sampling_message(sampling)
        )
        with asking(self.address, "Generate") as span:
            return Answer.of(await self._generation.Generate(request, **self._call(span)))

    async def generate_stream(
        self,
        prompt: Prompt,
        *,
        adapter: str = "",
        **sampling: Any,  # noqa: ANN401  # as above
    ) -> AsyncGenerator[Part, None]:
        """Answer a prompt piece by piece; closing the iterator stops the server's work.

        Args:
            prompt: As for `generate`.
            adapter: As for `generate`.
            **sampling: As for `generate`.

        Yields:
            The pieces; the first has no text and names the revision.

        Raises:
            EulError: The server refused or failed.
        """
        request = pb.GenerateStreamRequest(
            prompt=prompt_message(prompt), adapter=adapter, sampling=sampling_message(sampling)
        )
        with asking(self.address, "GenerateStream") as span:
            call = self._generation.GenerateStream(request, **self._call(span))
            try:
                async for message in call:
                    yield Part.of(message)
            finally:
                call.cancel()

    async def classify(self, prompt: Prompt, labels: Sequence[str], *, adapter: str = "") -> Classification:
        """Choose the label whose words are most likely after a prompt.

        Args:
            prompt: As for `generate`.
            labels: The labels, exactly as they would follow the prompt.
            adapter: As for `generate`.

        Returns:
            The label and every label's probability.

        Raises:
            EulError: The server refused or failed.
        """
        request = pb.ClassifyRequest(prompt=prompt_message(prompt), adapter=adapter, labels=labels)
        with asking(self.address, "Classify") as span:
            return Classification.of(await self._generation.Classify(request, **self._call(span)))

    async def bundles(self) -> list[BundleAlias]:
        """Return the aliases that the caller may use, by name.

        Returns:
            The aliases.

        Raises:
            EulError: The server refused or failed.
        """
        with asking(self.address, "ListBundles") as span:
            response = await self._bundles.ListBundles(bundle_service_pb2.ListBundlesRequest(), **self._call(span))
        return [BundleAlias.of(one) for one in response.bundles]

    async def watch_bundles(self) -> AsyncGenerator[list[BundleAlias], None]:
        """Yield the aliases that the caller may use, now and whenever something of them has changed.

        Yields:
            All of them, by name; closing the iterator ends the watch.

        Raises:
            EulError: The server refused or failed, or the right was withdrawn.
        """
        with asking(self.address, "WatchBundles") as span:
            request = bundle_service_pb2.WatchBundlesRequest()
            call = self._bundles.WatchBundles(request, metadata=(*self._metadata, *span))
            try:
                async for message in call:
                    yield [BundleAlias.of(one) for one in message.bundles]
            finally:
                call.cancel()

    async def tenant(self) -> Tenant:
        """Return what the policy says of the caller.

        Returns:
            The caller.

        Raises:
            EulError: The server refused or failed.
        """
        with asking(self.address, "GetTenant") as span:
            return Tenant.of(await self._tenants.GetTenant(tenant_service_pb2.GetTenantRequest(), **self._call(span)))

    async def health(self, service: str = READINESS) -> bool:
        """Return whether the server is ready; with `service=""`, whether it lives.

        Args:
            service: Name of the service that must be ready; empty for the server's life.

        Returns:
            Whether it says SERVING.

        Raises:
            EulError: It cannot be reached.
        """
        request = health_pb2.HealthCheckRequest(service=service)
        with asking(self.address, "Check"):
            response = await self._health.Check(request, timeout=self._settings.timeout_seconds)
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    def _call(self, span: Metadata) -> dict[str, Any]:
        return {"metadata": (*self._metadata, *span), "timeout": self._settings.timeout_seconds}
