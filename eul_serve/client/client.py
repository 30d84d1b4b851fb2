"""`Client`: what a server can be asked, with Python values in and out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from eul_serve.client.answers import Answer, BundleAlias, Classification, Part, Tenant
from eul_serve.client.channel import open_channel
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

READINESS = "eul_serve.v1.GenerationService"


class Client:
    """One connection to a server."""

    def __init__(self, address: str, token: str | None = None, *, settings: Settings | None = None) -> None:
        """Connect lazily.

        Args:
            address: `HOST:PORT`.
            token: Bearer token; only health works without one.
            settings: Further settings; address and token here replace those in it.
        """
        settings = replace(settings or Settings(), address=address, token=token)
        self._settings = settings
        self._channel = open_channel(settings)
        self._metadata = settings.metadata
        self._generation = generation_service_pb2_grpc.GenerationServiceStub(self._channel)  # type: ignore[no-untyped-call]  # protoc writes no types
        self._bundles = bundle_service_pb2_grpc.BundleServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._tenants = tenant_service_pb2_grpc.TenantServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Where the server is, `HOST:PORT`."""
        return self._settings.address

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def generate(self, prompt: Prompt, *, adapter: str = "", **sampling: Any) -> Answer:  # noqa: ANN401  # as pb.Sampling
        """Answer a prompt.

        Args:
            prompt: Text, token ids, or messages.
            adapter: Empty for the tenant's default, `name`, `name:alias`, `name@sha256:...`, or `base`.
            **sampling: Fields of `eul_serve.v1.Sampling`: max_tokens, temperature, top_p, top_k, seed, stop, logprobs.

        Returns:
            The answer.

        Raises:
            EulError: The server refused or failed; see `eul_serve.errors`.
        """
        request = pb.GenerateRequest(
            prompt=prompt_message(prompt), adapter=adapter, sampling=sampling_message(sampling)
        )
        with asking(self._settings.address, "Generate") as span:
            return Answer.of(self._generation.Generate(request, **self._call(span)))

    def generate_stream(self, prompt: Prompt, *, adapter: str = "", **sampling: Any) -> Iterator[Part]:  # noqa: ANN401  # as above
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
        with asking(self._settings.address, "GenerateStream") as span:
            call = self._generation.GenerateStream(request, **self._call(span))
            try:
                for message in call:
                    yield Part.of(message)
            finally:
                call.cancel()

    def classify(self, prompt: Prompt, labels: Sequence[str], *, adapter: str = "") -> Classification:
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
        with asking(self._settings.address, "Classify") as span:
            return Classification.of(self._generation.Classify(request, **self._call(span)))

    def bundles(self) -> list[BundleAlias]:
        """Return the aliases that the caller may use.

        Returns:
            The aliases by name.

        Raises:
            EulError: The server refused or failed.
        """
        with asking(self._settings.address, "ListBundles") as span:
            response = self._bundles.ListBundles(bundle_service_pb2.ListBundlesRequest(), **self._call(span))
        return [BundleAlias.of(one) for one in response.bundles]

    def watch_bundles(self) -> Iterator[list[BundleAlias]]:
        """Yield the aliases that the caller may use, now and whenever something of them has changed.

        Yields:
            All of them, by name; closing the iterator ends the watch.

        Raises:
            EulError: The server refused or failed, or the right was withdrawn.
        """
        with asking(self._settings.address, "WatchBundles") as span:
            request = bundle_service_pb2.WatchBundlesRequest()
            call = self._bundles.WatchBundles(request, metadata=(*self._metadata, *span))
            try:
                for message in call:
                    yield [BundleAlias.of(one) for one in message.bundles]
            finally:
                call.cancel()

    def tenant(self) -> Tenant:
        """Return what the policy says of the caller.

        Returns:
            The caller.

        Raises:
            EulError: The server refused or failed.
        """
        with asking(self._settings.address, "GetTenant") as span:
            return Tenant.of(self._tenants.GetTenant(tenant_service_pb2.GetTenantRequest(), **self._call(span)))

    def health(self, service: str = READINESS) -> bool:
        """Return whether the server is ready; with `service=""`, whether it lives.

        Args:
            service: Name of the service that must be ready; empty for the server's life.

        Returns:
            Whether it says SERVING.

        Raises:
            EulError: It cannot be reached.
        """
        with asking(self._settings.address, "Check"):
            response = self._health.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=self._settings.timeout_seconds
            )
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    def _call(self, span: Metadata) -> dict[str, Any]:
        return {"metadata": (*self._metadata, *span), "timeout": self._settings.timeout_seconds}
