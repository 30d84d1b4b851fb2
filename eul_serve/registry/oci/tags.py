"""Tags of records: a key's parts in a form that OCI allows as a tag, and back.

    ("revisions", "<hex>.json")             _R<hex>
    ("aliases", "stable", "3.json")         _AstableS3
    ("signatures", "<hex>", "<hex>.json")   _SH<base32>SH<base32>
    ("log", "17.json")                      _L17
    ("registry.json",)                      _Kregistry

Every tag of a record starts with `_` and a capital letter. Aliases start with a letter or digit, so that none can ever
be mistaken for a record; the lock's tag has a small letter after its `_`. Capital letters separate and escape, since
the names of this project have none: `S` stands between parts, `X` and two hex digits stand for any other byte, `H` and
52 characters for a digest where the tag would be too long, and an `F` at the end says that no `.json` was cut off.
"""

from __future__ import annotations

import base64
import re

from eul_serve.errors import InputError
from eul_serve.registry.store import Key

MAX_TAG = 128
"""Most characters of a tag."""
LOCK = "_lock"
"""Tag of a repository's lock."""
UPLOAD = "_U"
"""Start of the tags that remember uploaded blobs; the digest's hex digits follow."""

_KINDS = {
    "revisions": "R",
    "aliases": "A",
    "signatures": "S",
    "log": "L",
    "orders": "O",
    "claims": "C",
    "names": "N",
}
_OTHER = "K"
_FIRST = {letter: first for first, letter in _KINDS.items()}
_JSON = ".json"
_TAG = re.compile(rf"_([{''.join(_FIRST)}{_OTHER}])(.+?)(F?)")
_PLAIN = re.compile(rb"[a-z0-9._-]")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ESCAPED = re.compile(rb"X([0-9a-f]{2})")


def tag_of(parts: Key) -> str:
    """Return the tag of a record.

    Args:
        parts: The record's key below its repository.

    Returns:
        The tag.

    Raises:
        InputError: It would be longer than a tag may be.
    """
    for short in (False, True):
        if len(tag := _tag(parts, short)) <= MAX_TAG:
            return tag
    raise InputError(f"record {'/'.join(parts)!r:.200}: its tag would have more than {MAX_TAG} characters")


def parts_of(tag: str) -> Key | None:
    """Return the key of a record's tag below its repository; None for a tag of another kind."""
    if not (found := _TAG.fullmatch(tag)):
        return None
    kind, body, full = found.groups()
    try:
        parts = [_unescape(piece) for piece in body.split("S")]
    except ValueError:
        return None
    if not full:
        parts[-1] += _JSON
    key = tuple(parts) if kind == _OTHER else (_FIRST[kind], *parts)
    # Only what we would write ourselves: one record has one tag.
    return key if tag_of(key) == tag else None


def _tag(parts: Key, short: bool) -> str:
    kind = _KINDS.get(parts[0]) if len(parts) > 1 else None
    *rest, last = parts[1:] if kind else parts
    cut = last.removesuffix(_JSON)
    if full := not cut or cut == last:
        cut = last
    body = "S".join(_escape(part, short) for part in (*rest, cut))
    return f"_{kind or _OTHER}{body}{'F' if full else ''}"


def _escape(part: str, short: bool) -> str:
    if short and _DIGEST.fullmatch(part):
        return "H" + base64.b32encode(bytes.fromhex(part)).decode().lower().rstrip("=")
    pieces = [bytes([byte]) for byte in part.encode()]
    return "".join(piece.decode() if _PLAIN.fullmatch(piece) else f"X{piece[0]:02x}" for piece in pieces)


def _unescape(piece: str) -> str:
    if piece.startswith("H"):
        return base64.b32decode(piece[1:].upper() + "====").hex()
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), piece.encode()).decode()
