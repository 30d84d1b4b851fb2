"""Deletion requests: an opaque id, a reason, the day it came in, the rows and their digest; never who asked.

A file of requests has one JSON object per line:

    {"digest": "sha256:...", "id": "r-3f2a...", "reason": "erasure", "received": "2026-11-24", "rows": "forget.jsonl"}

`rows` is a JSON-lines file of prompts and completions, named relative to the file of requests.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format import check_digest, check_name
from eul_trainer.records import Row, digest_rows, read_rows, without

KEYS = ("digest", "id", "reason", "received", "rows")
"""Keys of a record, all of them needed."""

_REASON = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One deletion request."""

    id: str
    """Opaque id: 1 to 63 of a-z, 0-9, dot, dash and underscore; never a person's name."""
    reason: str = "not stated"
    """Why, in at most 200 characters; it stays in this record and is published nowhere."""
    received: str | None = None
    """Day on which it came in, YYYY-MM-DD, if known; never read from a clock, so that a file can be made again."""
    rows: Path
    """File with the rows to forget, as it can be opened from here."""
    digest: str
    """Digest of those rows, as in a layer's manifest."""

    def read(self) -> list[Row]:
        """Return the rows to forget, after a check that they are still the ones that were asked for.

        Returns:
            The rows.

        Raises:
            InputError: The file cannot be read, or its rows have another digest.
        """
        found = read_rows(self.rows)
        if digest_rows(found) != self.digest:
            raise InputError(
                f"request {self.id!r}: rows {str(self.rows)!r}: expected digest {self.digest}, found "
                f"{digest_rows(found)}; the rows were changed: bring back the old file or write the request anew"
            )
        return found


def request_for(rows: Sequence[Row], path: Path, *, reason: str, received: str | None, id: str | None) -> Request:
    """Return the request of rows.

    Args:
        rows: The rows to forget.
        path: The file that holds them.
        reason: Why.
        received: Day on which it came in, YYYY-MM-DD, if known.
        id: Opaque id; if not given, one made of the rows' digest.

    Returns:
        The request.

    Raises:
        InputError: The id, reason or day is not acceptable.
    """
    digest = digest_rows(rows)
    name = id if id is not None else "r-" + digest.removeprefix("sha256:")[:12]
    return Request(
        id=check_name(name, "request"),
        reason=_reason(reason, f"request {name!r}"),
        received=_day(received, f"request {name!r}"),
        rows=path,
        digest=digest,
    )


def read_requests(path: Path) -> list[Request]:
    """Read a file of requests, with their rows' digests checked.

    Args:
        path: The file; blank lines are passed over.

    Returns:
        The requests in the order of the file, at least one.

    Raises:
        InputError: A record or its rows cannot be read, has an unknown or missing key, another digest, or an id
            that an earlier line has.
    """
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except OSError as error:
        raise InputError(f"requests {str(path)!r}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"requests {str(path)!r}: expected UTF-8 text, found {error.reason}") from error
    found: dict[str, Request] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            request = _parse(line, f"{path}:{number}", path.parent)
            if request.id in found:
                raise InputError(f"{path}:{number}: id {request.id!r} is used twice; give each request its own")
            found[request.id] = request
    if not found:
        raise InputError(f"requests {str(path)!r}: expected JSON lines, found an empty file")
    for request in found.values():
        request.read()
    return list(found.values())


def write_requests(path: Path, requests: Iterable[Request]) -> None:
    """Write a file of requests; the rows are named relative to it."""
    path.write_text("".join(_dump(request, path.parent) for request in requests), encoding="utf-8")


def without_requests(rows: Sequence[Row], requests: Iterable[Request]) -> list[Row]:
    """Return the rows that no request asks to have forgotten: a later retain set holds no earlier request's rows."""
    return without(rows, (row for request in requests for row in request.read()))


def retained(rows: Sequence[Row], forget: Sequence[Row], earlier: Iterable[Path]) -> list[Row]:
    """Return what is left to be retained once the rows to forget, now and in earlier requests, are taken out.

    Args:
        rows: Rows of the retain file.
        forget: Rows to forget now.
        earlier: Files of earlier requests.

    Returns:
        The rows that are left.
    """
    kept = without(rows, forget)
    for path in earlier:
        kept = without_requests(kept, read_requests(path))
    return kept


def request_of(path: Path, rows: Sequence[Row], given: str | None = None) -> Request:
    """Return the request of a file that asks to have exactly these rows forgotten.

    Args:
        path: The file of requests.
        rows: The rows to forget.
        given: Id that the request must have, if it is known.

    Returns:
        The request.

    Raises:
        InputError: No request of the file does, or it has another id.
    """
    digest = digest_rows(rows)
    requests = read_requests(path)
    for request in requests:
        if request.digest == digest and given not in (None, request.id):
            raise InputError(f"request {given!r}: {str(path)!r} calls it {request.id!r}; leave one of the two out")
        if request.digest == digest:
            return request
    raise InputError(
        f"requests {str(path)!r}: none of {len(requests)} asks for the rows of --forget, {digest}; name the file of "
        "rows that the request names"
    )


def _dump(request: Request, folder: Path) -> str:
    record = {
        "digest": request.digest,
        "id": request.id,
        "reason": request.reason,
        "received": request.received,
        "rows": Path(os.path.relpath(request.rows, folder)).as_posix(),
    }
    return json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n"


def _parse(line: str, where: str, folder: Path) -> Request:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected one JSON object per line, found {error}") from error
    if not isinstance(raw, dict) or set(raw) != set(KEYS):
        found = ", ".join(sorted(map(str, raw)))[:200] if isinstance(raw, dict) else type(raw).__name__
        raise InputError(f"{where}: expected a request with exactly {', '.join(KEYS)}; found {found or 'none'}")
    rows = raw["rows"]
    if not isinstance(rows, str) or not rows or "\0" in rows:
        raise InputError(f"{where}: rows: expected the name of a file, found {type(rows).__name__}")
    try:
        return Request(
            id=check_name(raw["id"], "request"),
            reason=_reason(raw["reason"], "reason"),
            received=_day(raw["received"], "received"),
            rows=folder / rows,
            digest=check_digest(raw["digest"]),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _reason(given: object, what: str) -> str:
    if not isinstance(given, str) or not 0 < len(given) <= _REASON or not given.isprintable():
        raise InputError(f"{what}: expected 1 to {_REASON} printable characters that say why")
    return given


def _day(given: object, what: str) -> str | None:
    if given is None:
        return None
    try:
        if isinstance(given, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", given, re.ASCII):
            return date.fromisoformat(given).isoformat()
    except ValueError:
        pass
    raise InputError(f"{what}: expected a day as YYYY-MM-DD, found {given!r:.40}")
