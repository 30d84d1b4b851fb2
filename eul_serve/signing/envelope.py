"""The file of a signature: a Sigstore bundle in its one form, and refusals in words of whatever else it may hold."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eul_serve.errors import InputError, RefusedError
from eul_serve.format.config import parse_object

MAX_SIGNATURE = 1 << 20
"""Most bytes of a signature file."""
BASE64 = ("payload", "sig", "rawBytes")
"""Fields of a Sigstore bundle that hold bytes."""


def read_envelope(data: bytes) -> dict[str, Any]:
    """Parse the file of a signature.

    Args:
        data: Its bytes.

    Returns:
        Its JSON.

    Raises:
        ValueError: It is too large, no JSON, or JSON in another form than the one in which it is written.
        BundleFormatError: It is no JSON object, has a key twice, or is nested too deep.
    """
    if len(data) > MAX_SIGNATURE:
        raise ValueError("expected at most 1 MiB")
    found = parse_object(data, "signature")
    check_form(found)
    # Else anybody could change spaces and escapes, and two files would be the same signature.
    if json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode() != data:
        raise ValueError("expected JSON without spaces, as model-signing 1.1 writes it; sign again with that")
    return found


def check_form(part: object, name: str = "") -> None:
    """Refuse base64 with bits that its decoder drops: no two files are the same signature.

    Args:
        part: The JSON of a signature, or a part of it.
        name: The field that it stands in.

    Raises:
        ValueError: A field has another form.
    """
    if isinstance(part, dict):
        for key, inner in part.items():
            check_form(inner, key)
    elif isinstance(part, list):
        for inner in part:
            check_form(inner, name)
    elif name in BASE64 and isinstance(part, str) and base64.b64encode(base64.b64decode(part)).decode() != part:
        raise ValueError(f"{name}: expected base64 in its one form")


@contextmanager
def installed() -> Iterator[None]:
    """Say in words that an optional package is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"signatures need the package {error.name}: pip install 'eul-serve[sign]'") from error


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn whatever goes wrong into a refusal: a signature comes from outside, and anything may be in it."""
    try:
        yield
    except Exception as error:
        raise RefusedError(f"{what}: the signature does not hold: {words(error):.300}; do not use it") from error


def words(error: Exception) -> str:
    """Return an error's first line, or its kind where it has no words."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
