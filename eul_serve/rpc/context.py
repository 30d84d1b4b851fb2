"""What we use of grpc's untyped objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NoReturn, Protocol

import grpc
from google.protobuf.message import Message

Metadata = Iterable[tuple[str, str | bytes]]
"""Pairs of lower-case key and value."""


class CallDetails(Protocol):
    """A call before it has a handler."""

    method: str
    """`/package.Service/Method`."""
    invocation_metadata: Metadata | None
    """What the caller sent."""


class CallContext(Protocol):
    """A call in its handler."""

    def invocation_metadata(self) -> Metadata | None:
        """Return what the caller sent."""
        ...

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return what the transport knows of the caller, by name."""
        ...

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Set what goes back with the status."""
        ...

    async def write(self, message: Message) -> None:
        """Send one message of a stream."""
        ...

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata) -> NoReturn:
        """End the call with a status; raises."""
        ...
