"""The metrics port: plain HTTP, apart from the gRPC port, so that a network policy can tell them apart."""

from __future__ import annotations

from threading import Thread
from types import TracebackType
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from eul_serve.errors import InputError


class Exposition:
    """A running HTTP server for `/metrics`; stops when the context ends."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        try:
            started: tuple[WSGIServer, Thread] = start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            raise InputError(
                f"metrics address {host}:{port}: cannot listen: {error.strerror}; name a free port of this machine"
            ) from error
        self._server, self._thread = started

    @property
    def port(self) -> int:
        """The port that it listens on, also where 0 was asked for."""
        return self._server.server_port

    def __enter__(self) -> Exposition:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
