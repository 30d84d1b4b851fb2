"""How uvicorn reads a connection, with what we add: the client's certificate, and an end to those who say nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from eul_serve.web.exchange import NAMES, Message, Receive, Send

HEADER_SECONDS = 20.0
"""Longest wait for a connection's first request; who sends a byte now and then would hold it for ever."""


class CallerProtocol(H11Protocol):
    """HTTP/1.1 of one connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection; what it runs then knows whose certificate it shows."""
        super().connection_made(transport)
        names, inner = certificate_names(transport.get_extra_info("peercert")), self.app

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            await inner({**scope, NAMES: names}, receive, send)

        self.app = app
        self._first = self.loop.call_later(HEADER_SECONDS, self._end_the_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._first.cancel()
        super().connection_lost(exc)

    def _end_the_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()


def certificate_names(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the alternative names of a verified certificate, as gRPC has them.

    Args:
        certificate: What `ssl` tells of it; None where there is none.

    Returns:
        Its names, whatever their kind.
    """
    return frozenset(name for _, name in (certificate or {}).get("subjectAltName", ()))
