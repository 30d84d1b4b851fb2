"""What a registry answered, and which of our errors a refusal is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from eul_serve.errors import BusyError, CapacityError, EulError, InputError, NotFoundError, RefusedError

RETRIED = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same request may pass."""
_FULL = (413, 507)
_DELETE = (
    "the registry does not allow deletion; allow it there (docker-registry: REGISTRY_STORAGE_DELETE_ENABLED=true) "
    "and run again"
)


class BrokenError(BusyError):
    """A connection broke, or the registry could not answer; what it did is not known, and the same may pass later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer."""

    status: int
    """HTTP status."""
    headers: Mapping[str, str]
    """Headers; names in any case."""
    body: bytes
    """The body, whole."""


def refusal(what: str, answer: Answer, method: str = "GET") -> EulError:
    """Return the error that a refusal is.

    Args:
        what: What was asked for, for the message.
        answer: The refusal.
        method: How it was asked for.

    Returns:
        The error, to be raised.
    """
    said = f"{what}: the registry answered {answer.status}{_words(answer.body)}"
    if answer.status == 401:
        return InputError(f"{said}; log in with `oras login` or `docker login`, or check the password")
    if answer.status == 403:
        return InputError(f"{said}; ask its owner for the right to read and write there")
    if answer.status == 404:
        return NotFoundError(f"{said}; is it the right host and path?")
    if answer.status == 405 and method == "DELETE":
        return RefusedError(f"{what}: {_DELETE}")
    if answer.status in _FULL:
        return CapacityError(f"{said}; free space there, or raise its limit, and run again")
    if answer.status in RETRIED:
        return BrokenError(f"{said}, and did so again; try later")
    return InputError(f"{said}; does it speak the OCI distribution protocol?")


def _words(body: bytes) -> str:
    """Return what the body says in OCI's form of an error, in printable characters and not much of it."""
    try:
        first = json.loads(body[:10_000])["errors"][0]
        words = f"{first.get('code', '')} {first.get('message', '')}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    shown = "".join(character for character in words if character.isprintable())[:160].strip()
    return f" ({shown})" if shown else ""
