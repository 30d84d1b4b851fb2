"""One HTTP request and its answer, over ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from eul_serve.errors import InputError
from eul_serve.rpc.calls import request_id_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

NAMES = "eul_serve.certificate_names"
"""Where the server leaves the alternative names of a verified client certificate."""
EVENTS = "text/event-stream; charset=utf-8"
DRAINED = 8
"""How often the longest body is read before the connection is cut."""


class Exchange:
    """Lives as long as the request."""

    def __init__(self, scope: Message, receive: Receive, send: Send, max_bytes: int) -> None:
        """Take an ASGI request.

        Args:
            scope: What it is.
            receive: Brings its body.
            send: Takes the answer.
            max_bytes: Longest body that is read.
        """
        self._receive, self._send, self._max_bytes = receive, send, max_bytes
        self.method, self.path = str(scope["method"]), str(scope["path"])
        self.headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        self.names: frozenset[str] = scope.get(NAMES, frozenset())
        self.request_id = request_id_of(self.headers)
        self.begun = False
        """Whether an answer has begun, so that its status is told."""
        self.left = False
        """Whether the caller has gone away."""
        self._read = self._ended = False
        self._watch: asyncio.Task[None] | None = None

    async def json(self) -> Any:  # noqa: ANN401  # JSON
        """Return the body; from then on the work ends when the caller leaves.

        Returns:
            What the JSON says.

        Raises:
            InputError: It is too long, or no JSON.
        """
        body = await self._whole_body()
        task = asyncio.current_task()
        assert task is not None, "requests run in tasks"
        self._watch = asyncio.create_task(self._watch_caller(task))
        return _parsed(body)

    async def reply(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer.

        Args:
            status: HTTP status.
            body: The content.
            kind: Its media type.
            headers: Further headers.
        """
        sized = {"content-length": str(len(body)), **(headers or {})}
        # What was not read of a body would be taken for the next request.
        await self._begin(
            status, kind, sized if self._read or self.method == "GET" else {**sized, "connection": "close"}
        )
        await self._finish(body)

    async def reply_json(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer as JSON.

        Args:
            status: HTTP status.
            content: What to say.
            headers: Further headers.
        """
        await self.reply(status, json.dumps(content).encode(), "application/json", headers)

    async def event(self, data: str, headers: Mapping[str, str] | None = None) -> None:
        """Send one event of a stream, the first of which begins the answer.

        Args:
            data: One line.
            headers: Further headers, where it is the first.
        """
        if not self.begun:
            await self._begin(200, EVENTS, headers or {})
        await self._send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})

    async def end(self) -> None:
        """End a stream of events."""
        await self._finish(b"")

    def close(self) -> None:
        """Stop watching the caller."""
        if self._watch is not None:
            self._watch.cancel()

    async def _whole_body(self) -> bytes:
        """Return the body; of one that is too long, read some more than is kept: who still sends hears no answer."""
        kept, size, more = bytearray(), 0, True
        while more and size <= DRAINED * self._max_bytes:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.left = True
                raise asyncio.CancelledError
            part = message.get("body", b"")
            size, more = size + len(part), bool(message.get("more_body", False))
            kept += part if size <= self._max_bytes else b""
        self._read = not more
        if size > self._max_bytes:
            raise InputError(f"request: longer than {self._max_bytes} bytes; send less")
        return bytes(kept)

    async def _begin(self, status: int, kind: str, headers: Mapping[str, str]) -> None:
        self.begun = True
        told = {"content-type": kind, "x-request-id": self.request_id, "x-content-type-options": "nosniff", **headers}
        told.setdefault("cache-control", "no-store")
        pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in told.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def _finish(self, body: bytes) -> None:
        self._ended = True
        await self._send({"type": "http.response.body", "body": body})

    async def _watch_caller(self, task: asyncio.Task[Any]) -> None:
        """Stop the work when nobody waits for it any more; the end of the answer is told in the same words."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._ended:
            self.left = True
            task.cancel()


def _parsed(body: bytes) -> Any:  # noqa: ANN401  # JSON
    try:
        found = json.loads(body)
        json.dumps(found, ensure_ascii=False).encode()  # JSON can write half a character, which no tokenizer reads
    except (ValueError, RecursionError) as error:
        raise InputError("request: expected JSON in UTF-8 as the body, with whole characters") from error
    return found
