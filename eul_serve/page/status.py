"""The routes of the status page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from typing import Any

from google.protobuf.json_format import MessageToDict

from eul_serve.metrics import Metrics
from eul_serve.moment import utc_now
from eul_serve.page.recent import Recent
from eul_serve.rpc.denials import Denials
from eul_serve.rpc.overview import Overview, step_message
from eul_serve.web.app import Route
from eul_serve.web.exchange import Exchange

CHALLENGE = 'Basic realm="eul: any name, an administrator\'s token as the password", charset="UTF-8"'
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    # Nothing but our own files, in nobody's frame: what a bundle or a tenant is called can not become code.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
}


class StatusPage:
    """Shows one server."""

    def __init__(self, overview: Overview, denials: Denials, recent: Recent, metrics: Metrics) -> None:
        self._overview, self._denials, self._recent, self._metrics = overview, denials, recent, metrics
        folder = resources.files("eul_serve.page").joinpath("files")
        self._contents = {name: folder.joinpath(name).read_bytes() for name, _ in _FILES.values()}

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Return all that is served."""
        pages = {("GET", path): Route("StatusPage", self._file) for path in _FILES}
        return {**pages, ("GET", "/status.json"): Route("StatusPage", self._status)}

    async def _file(self, exchange: Exchange) -> None:
        name, kind = _FILES[exchange.path]
        await exchange.reply(200, self._contents[name], kind, _HEADERS)

    async def _status(self, exchange: Exchange) -> None:
        await exchange.reply_json(200, self.snapshot(), _HEADERS)

    def snapshot(self) -> dict[str, Any]:
        """Return everything that the page shows, as JSON has it."""
        return {
            "at": utc_now(),
            "status": _json(self._overview.message()),
            "tokens": {kind: self._value("eul_tokens_total", kind=kind) for kind in ("prompt", "completion")},
            "in_flight": self._value("eul_in_flight_requests"),
            "denials": [asdict(denial) for denial in self._denials.recent()],
            "happenings": [_json(step_message(one)) for one in self._recent.newest()],
        }

    def _value(self, name: str, **labels: str) -> float:
        return self._metrics.registry.get_sample_value(name, labels) or 0.0


def _json(message: Any) -> dict[str, Any]:  # noqa: ANN401  # any message
    return MessageToDict(message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
