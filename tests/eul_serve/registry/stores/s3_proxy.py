"""A proxy between a client and the S3 server, which loses answers, refuses, or lies, as a test asks for."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["pass", "lose the answer", "slow down", "say done"]
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a client."""

    method: str
    """Its method."""
    path: str
    """Its path with the query."""
    size: int
    """Bytes of its body."""


@dataclass(slots=True)
class Proxy:
    """What passed through, and what to do with what comes."""

    endpoint: str = ""
    """URL of the proxy."""
    rule: Callable[[Request], Fault] = lambda request: "pass"
    """Says what happens to a request."""
    seen: list[Request] = field(default_factory=list)
    """All requests, as they came."""

    def parts(self) -> list[Request]:
        """Return the requests that sent a part of an upload."""
        return [request for request in self.seen if request.method == "PUT" and "partNumber=" in request.path]


@contextmanager
def proxy_before(endpoint: str) -> Iterator[Proxy]:
    """Run a proxy.

    Args:
        endpoint: URL of the server behind it.

    Yields:
        The proxy.
    """
    proxy = Proxy()

    class Handler(_Handler):
        state, backend = proxy, urlsplit(endpoint).netloc

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Proxy
    backend: str

    def _handle(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, len(body))
        self.state.seen.append(request)
        fault = self.state.rule(request)
        if fault == "slow down":
            self._answer(503, {}, SLOW_DOWN)
            return
        status, headers, data = self._forward(body)
        if fault == "lose the answer":
            self.close_connection = True
        elif fault == "say done":
            self._answer(200, {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}, b"")
        else:
            self._answer(status, headers, data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def handle_expect_100(self) -> bool:
        return True  # `_handle` answers it, once

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.backend, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        # What HEAD says of the length is of the object, not of its own answer.
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass
