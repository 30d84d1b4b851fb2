"""Requests to one registry: our credentials, redirects that never take them elsewhere, and answers of bounded size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.registry.oci.address import joined, origin
from eul_serve.registry.oci.answer import Answer, BrokenError, refusal
from eul_serve.registry.oci.credentials import Credentials, find_credentials
from eul_serve.registry.oci.place import Place
from eul_serve.registry.oci.pool import READ_SECONDS, Pool, wire_errors
from eul_serve.registry.oci.request import Request
from eul_serve.registry.oci.tokens import Tokens

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

MAX_BODY = 4 << 20
"""Most bytes of an answer that is read whole: what registries allow for a manifest."""
PIECE_BYTES = 1 << 20
"""Most bytes that are read at once."""
READINGS = 3
"""How often an answer is asked for whose body breaks off."""
HOPS = 3
"""Most redirects that are followed."""
_REDIRECTS = (301, 302, 303, 307, 308)


class Wire:
    """A registry's HTTP interface; safe for threads."""

    def __init__(self, place: Place, credentials: Callable[[], Credentials] | None = None) -> None:
        self.place = place
        self._pool = Pool(place.base)
        self._tokens = Tokens(place, credentials or (lambda: find_credentials(place.host)), self._plain)
        self._ahead = 0.0

    def now(self) -> float:
        """Return the time by the registry's clock as its last answer told it, or ours before any, in seconds."""
        return time.time() + self._ahead

    def ask(self, request: Request, *, ok: tuple[int, ...], limit: int = MAX_BODY) -> Answer:
        """Send a request and return its answer whole.

        Args:
            request: The request.
            ok: Statuses that are no error.
            limit: Most bytes of the answer.

        Returns:
            The answer.

        Raises:
            BrokenError: The answer broke off again and again, or the registry cannot answer now.
            BundleFormatError: The answer is longer than the limit.
        """
        for last in range(READINGS):
            try:
                with self._opened(request) as response:
                    answer = self._read(response, limit, request.what)
                break
            except BrokenError:
                if request.once or last + 1 == READINGS:
                    raise
        if answer.status not in ok:
            raise refusal(request.what, answer, request.method)
        return answer

    @contextmanager
    def stream(self, request: Request, *, ok: tuple[int, ...]) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Send a request and read its answer piece by piece.

        Args:
            request: The request.
            ok: Statuses that are no error.

        Yields:
            The answer without its body, and the body's pieces, which raise BrokenError where they break off.
        """
        with self._opened(request) as response:
            if response.status not in ok:
                raise refusal(request.what, self._read(response, MAX_BODY, request.what), request.method)
            answer = Answer(status=response.status, headers=response.headers, body=b"")
            yield answer, _pieces(response, self.place.host)

    @contextmanager
    def _opened(self, request: Request) -> Iterator[BaseHTTPResponse]:
        response = self._authorized(request)
        try:
            url = self.absolute(request.url)
            for _ in range(HOPS):
                target = response.headers.get("Location")
                if response.status not in _REDIRECTS or not target:
                    break
                response.close()
                url = self._redirected(request, url, target)
                response = self._pool.send(request.method, url, self._headers(request, url), None)
            yield response
        finally:
            # Where the body was read to its end, the connection is back in the pool, and this closes nothing.
            response.close()

    def _authorized(self, request: Request) -> BaseHTTPResponse:
        url = self.absolute(request.url)
        response = self._send(request, url)
        challenge = response.headers.get("WWW-Authenticate", "")
        if response.status == 401 and challenge:
            self._read(response, MAX_BODY, request.what)
            if self._tokens.answer(challenge, request.scope) is not None:
                response = self._send(request, url)
            else:
                raise refusal(request.what, Answer(status=401, headers={}, body=b""), request.method)
        return response

    def _send(self, request: Request, url: str) -> BaseHTTPResponse:
        response = self._pool.send(request.method, url, self._headers(request, url), request.body, once=request.once)
        if told := parsedate_tz(response.headers.get("Date", "")):
            self._ahead = mktime_tz(told) - time.time()
        return response

    def _headers(self, request: Request, url: str) -> dict[str, str]:
        header = self._tokens.header(request.scope) if origin(url) == origin(self.place.base) else None
        return {**request.headers, **({"Authorization": header} if header else {})}

    def absolute(self, url: str) -> str:
        """Return an address that the registry gave as a whole URL, where it is one of its own.

        Args:
            url: The address, from the registry's root or whole.

        Returns:
            The URL.

        Raises:
            InputError: It leads to another host.
        """
        whole = joined(self.place.base + "/", url)
        if origin(whole) != origin(self.place.base):
            raise InputError(
                f"registry {self.place}: it sends us to {url!r:.100}, where our credentials must "
                "not go; use that host's own address"
            )
        return whole

    def _redirected(self, request: Request, url: str, target: str) -> str:
        whole = joined(url, target)
        scheme, host, _ = origin(whole)
        allowed = ("https",) if not self.place.plain else ("http", "https")
        if request.method not in ("GET", "HEAD") or scheme not in allowed or not host:
            raise InputError(
                f"{request.what}: the registry redirects {request.method} to {scheme}://{host:.100}; expected "
                f"{' or '.join(allowed)}, and only for reading; ask who runs it"
            )
        return whole

    def _read(self, response: BaseHTTPResponse, limit: int, what: str) -> Answer:
        deadline, body = time.monotonic() + 2 * READ_SECONDS, bytearray()
        for piece in _pieces(response, self.place.host):
            body += piece
            if len(body) > limit:
                response.close()
                raise BundleFormatError(f"{what}: expected at most {limit} bytes from the registry, found more")
            if time.monotonic() > deadline:
                response.close()
                raise BrokenError(f"{what}: the registry is still answering after {2 * READ_SECONDS:.0f} s; try later")
        return Answer(status=response.status, headers=response.headers, body=bytes(body))

    def _plain(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        response = self._pool.send(method, url, headers, body)
        try:
            return self._read(response, MAX_BODY, f"token service {urlsplit(url).netloc}")
        finally:
            response.close()


def _pieces(response: BaseHTTPResponse, host: str) -> Iterator[bytes]:
    with wire_errors(host):
        while data := response.read1(PIECE_BYTES):
            yield data
