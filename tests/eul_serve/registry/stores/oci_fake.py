"""A registry that answers whatever a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An answer to give."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    """What Content-Length says, where it is not the truth."""
    endless: bool = False
    """Whether to send the body until nobody reads it any more."""


Answers = Callable[[Asked], Told]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fake:
    """The fake while it runs."""

    host: str
    asked: list[Asked]
    sent: list[int]
    """Bytes of each piece of an endless answer."""


class FakeServer(ThreadingHTTPServer):
    """The fake's server."""

    daemon_threads = True

    def __init__(self, answers: Answers) -> None:
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.answers, self.asked, self.sent = answers, list[Asked](), list[int]()


class FakeHandler(BaseHTTPRequestHandler):
    """One connection to the fake."""

    protocol_version = "HTTP/1.1"
    server: FakeServer

    def any_method(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Asked(method=self.command, path=self.path, headers=dict(self.headers), body=body)
        self.server.asked.append(request)
        told = self.server.answers(request)
        self.send_response_only(told.status)
        for name, value in told.headers.items():
            self.send_header(name, value)
        if not told.endless:
            self.send_header("Content-Length", str(len(told.body) if told.length is None else told.length))
        self.end_headers()
        if self.command != "HEAD":
            self._write(told)
        self.close_connection = told.endless or told.length is not None

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = any_method

    def _write(self, told: Told) -> None:
        try:
            self.wfile.write(told.body)
            while told.endless:
                self.server.sent.append(self.wfile.write(told.body))
        except OSError:
            return

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def fake_registry(answers: Answers) -> Iterator[Fake]:
    """Serve answers on a free port."""
    with FakeServer(answers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield Fake(host=f"127.0.0.1:{server.server_port}", asked=server.asked, sent=server.sent)
        server.shutdown()
