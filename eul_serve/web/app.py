"""The edge of every HTTP request: an allow-list of routes, the caller, and errors turned into statuses.

Health is open to all. Everything else needs a caller that the policy knows, also to be told that there is no such
route.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from eul_serve.errors import IdentityError, NotFoundError
from eul_serve.rpc.calls import Calls
from eul_serve.rpc.current import ADMIN, CALLER
from eul_serve.web.exchange import Exchange, Message, Receive, Send
from eul_serve.web.refusal import body_of, headers_of, status_of

Identify = Callable[[Exchange], None]
"""Remembers who calls in a context variable; raises IdentityError where nobody is known."""


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a path."""

    name: str
    """What metrics and log call it."""
    handler: Callable[[Exchange], Awaitable[None]]
    """Sends the answer, or raises."""
    is_open: bool = False
    """Whether it answers anybody."""


class WebApp:
    """An ASGI application."""

    def __init__(
        self,
        routes: Mapping[tuple[str, str], Route],
        identify: Identify,
        calls: Calls,
        *,
        challenge: str = "Bearer",
        max_bytes: int = 4 << 20,
    ) -> None:
        """Take what it answers.

        Args:
            routes: Routes by method and path; there are no others.
            identify: Finds out who calls.
            calls: Runs the work of a call.
            challenge: What an unknown caller is asked for.
            max_bytes: Longest body that is read.
        """
        self._routes, self._identify, self._calls = dict(routes), identify, calls
        self._challenge, self._max_bytes = challenge, max_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; a caller who leaves ends it without a word in the log."""
        for known in (CALLER, ADMIN):  # requests on one connection may inherit each other's context
            known.set(None)
        exchange = Exchange(scope, receive, send, self._max_bytes)
        try:
            await self._answer(exchange)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None, "requests run in tasks"
            if not exchange.left:
                raise
            task.uncancel()
        finally:
            exchange.close()

    async def _answer(self, exchange: Exchange) -> None:
        route = self._routes.get((exchange.method, exchange.path))
        if route is not None and route.is_open:
            await route.handler(exchange)
            return
        try:
            self._identify(exchange)
        except IdentityError as error:
            if self._is_denial(exchange):
                self._calls.denials.count(error, route.name if route else "")
            await self._refuse(exchange, error, {"www-authenticate": self._challenge})
            return
        if route is None:
            there = ", ".join(" ".join(one) for one in self._routes)
            await self._refuse(exchange, NotFoundError(f"no such route; there are {there}"))
            return
        try:
            work = route.handler(exchange)
            await self._calls.run(route.name, exchange.request_id, exchange.headers, work, system="http")
        except Exception as error:  # the edge: nothing passes it but a status and one line
            await self._refuse(exchange, error)

    def _is_denial(self, exchange: Exchange) -> bool:
        """Return whether an unknown caller was turned away; a browser comes without a secret first, to be asked."""
        return not self._challenge.startswith("Basic") or any(name == "authorization" for name, _ in exchange.headers)

    async def _refuse(self, exchange: Exchange, error: Exception, headers: Mapping[str, str] | None = None) -> None:
        body = body_of(error, self._calls.text(error, exchange.request_id))
        if exchange.begun:  # the status is told already; an event says what became of the rest
            await exchange.event(json.dumps(body))
            await exchange.end()
        else:
            await exchange.reply_json(status_of(error), body, {**headers_of(error), **(headers or {})})
