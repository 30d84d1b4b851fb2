"""`AdminClient`: what an operator asks of a running server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from eul_serve.client.answers import state_name
from eul_serve.client.channel import open_channel
from eul_serve.client.failure import rpc_errors
from eul_serve.client.settings import Retries, Settings
from eul_serve.v1 import admin_service_pb2 as pb
from eul_serve.v1 import admin_service_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happened in a server."""

    at: str
    """When, UTC, ISO 8601; empty for the state that a watch begins with."""
    act: str
    """stage, canary, swap, swap_refused, withdraw, purge, policy, start, or an act of an administrator."""
    revision: str
    """The revision that it is about, or empty."""
    state: str
    """How far that revision is, or empty."""
    reference: str
    """The alias or bundle that it is about, or empty."""
    detail: str
    """What else there is to say."""

    @classmethod
    def of(cls, message: pb.WatchSwapsResponse) -> Step:
        """Read the message."""
        return cls(
            at=message.at,
            act=message.act,
            revision=message.revision,
            state=state_name(message.state) if message.state else "",
            reference=message.reference,
            detail=message.detail,
        )


class AdminClient:
    """One connection to a server's administrators' port; asks once, as an act is no question."""

    def __init__(self, address: str, token: str | None = None, *, settings: Settings | None = None) -> None:
        """Connect lazily.

        Args:
            address: `HOST:PORT`.
            token: An administrator's bearer token; None where a client certificate says who it is.
            settings: Further settings; address and token here replace those in it.
        """
        once = Retries(attempts=1)
        self._settings = settings = replace(settings or Settings(), address=address, token=token, retries=once)
        self._channel = open_channel(settings)
        self._metadata = settings.metadata
        self._stub = admin_service_pb2_grpc.AdminServiceStub(self._channel)  # type: ignore[no-untyped-call]  # protoc writes no types

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def status(self) -> pb.GetStatusResponse:
        """Return what the server holds and does."""
        found: pb.GetStatusResponse = self._ask("GetStatus", pb.GetStatusRequest())
        return found

    def activate(self, reference: str) -> str:
        """Let the server look at an alias now; return the revision that serves it then."""
        return str(self._ask("Activate", pb.ActivateRequest(reference=reference)).revision)

    def pin(self, reference: str) -> str:
        """Let an alias keep a slot; return the revision that has it."""
        return str(self._ask("Pin", pb.PinRequest(reference=reference)).revision)

    def unpin(self, reference: str) -> None:
        """Let an alias's slot go."""
        self._ask("Unpin", pb.UnpinRequest(reference=reference))

    def drain(self, reason: str) -> int:
        """Let the server take no new requests; return how many still run or wait."""
        return int(self._ask("Drain", pb.DrainRequest(reason=reason)).in_flight)

    def resume(self) -> None:
        """Let the server take requests again."""
        self._ask("Resume", pb.ResumeRequest())

    def reload_policy(self) -> tuple[str, bool]:
        """Let the server read its policy now; return its digest, and whether it changed."""
        response = self._ask("ReloadPolicy", pb.ReloadPolicyRequest())
        return str(response.epoch), bool(response.changed)

    def watch(self) -> Iterator[Step]:
        """Yield the state of every revision, then each step as it happens; closing the iterator ends it.

        Yields:
            The steps.

        Raises:
            EulError: The server refused or failed.
        """
        call = self._stub.WatchSwaps(pb.WatchSwapsRequest(), metadata=self._metadata)
        try:
            with rpc_errors(self._settings.address):
                for message in call:
                    yield Step.of(message)
        finally:
            call.cancel()

    def _ask(self, method: str, request: Any) -> Any:  # noqa: ANN401  # messages
        with rpc_errors(self._settings.address):
            return getattr(self._stub, method)(request, metadata=self._metadata, timeout=self._settings.timeout_seconds)
