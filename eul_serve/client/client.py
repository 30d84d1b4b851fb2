"""`Client`: what a server can be asked, with Python values in and out."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from eul_serve.address import Address
from eul_serve.client.answers import Answer, BundleAlias, Classification, Part
from eul_serve.client.failure import rpc_errors
from eul_serve.errors import InputError
from eul_serve.v1 import bundle_service_pb2, bundle_service_pb2_grpc, generation_service_pb2_grpc
from eul_serve.v1 import generation_service_pb2 as pb

Prompt = str | Sequence[int] | Sequence[tuple[str, str]]
"""Text, token ids, or messages as pairs of role (system, user, assistant) and text."""

READINESS = "eul_serve.v1.GenerationService"

_ROLES = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}
_TOKEN = re.compile(r"[!-~]+")
_OPTIONS = (("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_permit_without_calls", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to reach a server."""

    address: str = "127.0.0.1:8500"
    """`HOST:PORT`."""
    token: str | None = field(default=None, repr=False)
    """Bearer token; only health works without one."""
    tls: bool = False
    """Whether to encrypt, trusting the system's authorities."""
    ca_certificate: Path | None = None
    """PEM of the authority to trust instead; turns TLS on."""
    insecure: bool = False
    """Whether a token may go to another machine in plaintext."""
    timeout_seconds: float = 300.0
    """Longest time of one call in seconds."""

    def __post_init__(self) -> None:
        if self.token and not _TOKEN.fullmatch(self.token):  # not shown, as it may be a slip in a real one
            raise InputError("token: expected printable ASCII without spaces, as `eul token` makes them")
        plaintext = not self.tls and self.ca_certificate is None
        if plaintext and self.token and not self.insecure and not Address.parse(self.address).is_loopback:
            raise InputError(
                f"server {self.address!r}: the token would leave this machine in plaintext; use --tls or --ca-cert, or "
                "pass --insecure where something else encrypts"
            )


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
        self._channel = _open(settings)
        self._metadata = (("authorization", f"Bearer {settings.token}"),) if settings.token else ()
        self._generation = generation_service_pb2_grpc.GenerationServiceStub(self._channel)  # type: ignore[no-untyped-call]  # protoc writes no types
        self._bundles = bundle_service_pb2_grpc.BundleServiceStub(self._channel)  # type: ignore[no-untyped-call]
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
        request = pb.GenerateRequest(prompt=_prompt(prompt), adapter=adapter, sampling=_sampling(sampling))
        with rpc_errors(self._settings.address):
            return Answer.of(self._generation.Generate(request, **self._call()))

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
        request = pb.GenerateStreamRequest(prompt=_prompt(prompt), adapter=adapter, sampling=_sampling(sampling))
        call = self._generation.GenerateStream(request, **self._call())
        try:
            with rpc_errors(self._settings.address):
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
        request = pb.ClassifyRequest(prompt=_prompt(prompt), adapter=adapter, labels=labels)
        with rpc_errors(self._settings.address):
            return Classification.of(self._generation.Classify(request, **self._call()))

    def bundles(self) -> list[BundleAlias]:
        """Return the aliases that the caller may use.

        Returns:
            The aliases by name.

        Raises:
            EulError: The server refused or failed.
        """
        with rpc_errors(self._settings.address):
            response = self._bundles.ListBundles(bundle_service_pb2.ListBundlesRequest(), **self._call())
        return [BundleAlias.of(one) for one in response.bundles]

    def health(self, service: str = READINESS) -> bool:
        """Return whether the server is ready; with `service=""`, whether it lives.

        Args:
            service: Name of the service that must be ready; empty for the server's life.

        Returns:
            Whether it says SERVING.

        Raises:
            EulError: It cannot be reached.
        """
        with rpc_errors(self._settings.address):
            response = self._health.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=self._settings.timeout_seconds
            )
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    def _call(self) -> dict[str, Any]:
        return {"metadata": self._metadata, "timeout": self._settings.timeout_seconds}


def _open(settings: Settings) -> grpc.Channel:
    address = str(Address.parse(settings.address))
    if settings.ca_certificate is None and not settings.tls:
        return grpc.insecure_channel(address, options=_OPTIONS)
    trusted = _read_certificate(settings.ca_certificate) if settings.ca_certificate else None
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(trusted), options=_OPTIONS)


def _read_certificate(path: Path) -> bytes:
    """Return the bytes of a PEM file, checked here, as grpc would only write to the log what is wrong with it."""
    try:
        data = path.read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise InputError(f"--ca-cert {str(path)!r}: expected PEM certificates, found none that can be read") from error
    except OSError as error:
        raise InputError(f"--ca-cert {str(path)!r}: cannot read: {error.strerror}") from error
    return data


def _prompt(prompt: Prompt) -> pb.Prompt:
    if isinstance(prompt, str):
        return pb.Prompt(text=prompt)
    chat, tokens = [], []
    for part in prompt:
        if isinstance(part, int):
            tokens.append(part)
        elif part[0] in _ROLES:
            chat.append(pb.ChatMessage(role=_ROLES[part[0]], content=part[1]))
        else:
            raise InputError(f"role {part[0]!r}: expected one of {', '.join(_ROLES)}")
    if chat and tokens:
        raise InputError("prompt: give messages or token ids, not both")
    return pb.Prompt(chat=pb.ChatMessages(messages=chat)) if chat else pb.Prompt(tokens=pb.TokenIds(ids=tokens))


def _sampling(given: dict[str, Any]) -> pb.Sampling:
    """Return the settings that are not None."""
    try:
        return pb.Sampling(**{name: value for name, value in given.items() if value is not None})
    except (ValueError, TypeError) as error:
        raise InputError(f"sampling: {error}; see eul_serve.v1.Sampling for the fields and their types") from error
