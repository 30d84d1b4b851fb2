"""Tokens: what a registry asks for with `WWW-Authenticate`, and how one is had for our credentials."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

from eul_serve.errors import InputError
from eul_serve.registry.oci.answer import Answer, refusal
from eul_serve.registry.oci.credentials import Credentials
from eul_serve.registry.oci.place import LOOPBACK, Place

CLIENT = "eul-serve"
_PAIR = re.compile(r'([A-Za-z]+)\s*=\s*"([^"]*)"')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,32768}")

Ask = Callable[[str, str, dict[str, str], bytes | None], Answer]
"""Sends a request without credentials of its own: method, URL, headers, body."""


class Tokens:
    """The value of the header Authorization for each scope, asked for once and again when it has run out."""

    def __init__(self, place: Place, credentials: Callable[[], Credentials], ask: Ask) -> None:
        self._place, self._find, self._ask = place, credentials, ask
        self._known: dict[str, str] = {}
        self._credentials: Credentials | None = None
        self._mutex = threading.Lock()

    def header(self, scope: str) -> str | None:
        """Return the header for a scope, None before a registry has asked for one."""
        return self._known.get(scope)

    def answer(self, challenge: str, scope: str) -> str | None:
        """Return the header that answers a registry's challenge, and keep it.

        Args:
            challenge: The header `WWW-Authenticate`.
            scope: What is to be done, `repository:<path>:<actions>`.

        Returns:
            The header; None where we have nothing to answer with.

        Raises:
            InputError: The token service is not one to send a password to, or does not give a token.
        """
        kind, _, rest = challenge.strip().partition(" ")
        with self._mutex:
            if self._credentials is None:
                self._credentials = self._find()
            header = self._credentials.basic if kind.lower() == "basic" else None
            if kind.lower() == "bearer":
                header = self._exchange(dict(_PAIR.findall(rest)), scope, self._credentials)
            if header is None:
                self._known.pop(scope, None)
            else:
                self._known[scope] = header
            return header

    def _exchange(self, asked: dict[str, str], scope: str, credentials: Credentials) -> str:
        realm = self._check_realm(asked.get("realm", ""))
        query = {"scope": scope, **({"service": asked["service"]} if "service" in asked else {})}
        headers = {"Accept": "application/json"}
        if credentials.identity:
            form = {
                **query,
                "grant_type": "refresh_token",
                "client_id": CLIENT,
                "refresh_token": credentials.identity,
            }
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            answer = self._ask("POST", realm, headers, urlencode(form).encode())
        else:
            if credentials.basic:
                headers["Authorization"] = credentials.basic
            joint = "&" if urlsplit(realm).query else "?"
            answer = self._ask("GET", f"{realm}{joint}{urlencode(query)}", headers, None)
        return self._bearer(answer, realm)

    def _bearer(self, answer: Answer, realm: str) -> str:
        what = f"token service {urlsplit(realm).netloc}"
        if answer.status != 200:
            raise refusal(what, answer)
        try:
            found = json.loads(answer.body)
            token = found.get("token") or found.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise InputError(f"{what}: expected a token in JSON, found something else; ask who runs the registry")
        return f"Bearer {token}"

    def _check_realm(self, realm: str) -> str:
        """Return the address of the token service, where a password may be sent to it."""
        try:
            parts = urlsplit(realm)
            local = self._place.plain and parts.scheme == "http"
            same = parts.netloc == self._place.host or parts.hostname in LOOPBACK
        except ValueError:
            raise InputError(f"registry {self._place}: token service {realm!r:.100}: expected a URL") from None
        if not parts.hostname or "@" in parts.netloc or not (parts.scheme == "https" or (local and same)):
            raise InputError(
                f"registry {self._place}: it names the token service {realm!r:.100}; expected https, so that no "
                "password is sent in the open; ask who runs the registry"
            )
        return realm
