"""Rows of data: a prompt and the completion that is to be forgotten or kept, one JSON object per line."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError
from eul_serve.format.digest import digest_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Which fields of a row are read."""

    prompt: str = "prompt"
    """Field with the question."""
    completion: str = "completion"
    """Field with the answer."""
    group: str | None = None
    """Field with the row's group, for evaluation; a row without it is in the group `all`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One question and answer."""

    prompt: str
    """The question, as a person would type it."""
    completion: str
    """The answer."""
    group: str = "all"
    """The group it is counted in."""
    where: str = field(default="", compare=False)
    """File and line that it was read from, for messages."""
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Further keys that a data builder writes beside the three; reading passes them over."""


def read_rows(path: Path, fields: Fields | None = None) -> list[Row]:
    """Read a JSON-lines file.

    Args:
        path: The file; blank lines are passed over.
        fields: The fields to read; `prompt` and `completion` if not given.

    Returns:
        The rows, at least one.

    Raises:
        InputError: The file is missing, empty or not UTF-8, or a row is not JSON or lacks a field.
    """
    fields = fields or Fields()
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except OSError as error:
        raise InputError(f"data file {str(path)!r}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"data file {str(path)!r}: expected UTF-8 text, found {error.reason}") from error
    rows = [_parse(line, f"{path}:{number}", fields) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise InputError(f"data file {str(path)!r}: expected JSON lines, found an empty file")
    return rows


def _parse(line: str, where: str, fields: Fields) -> Row:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected one JSON object per line, found {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(found).__name__}")
    group = found.get(fields.group, "all") if fields.group else "all"
    return Row(
        prompt=_text(found, fields.prompt, where, "--prompt-field"),
        completion=_text(found, fields.completion, where, "--completion-field"),
        group=str(group),
        where=where,
    )


def _text(found: dict[str, Any], field: str, where: str, option: str) -> str:
    if field not in found:
        names = ", ".join(sorted(map(str, found)))[:200] or "none"
        raise InputError(f"{where}: missing field {field!r}; the row has {names}; name another with {option}")
    value = found[field]
    if not isinstance(value, str) or not value.strip():
        # Its kind alone: what a person asked to have forgotten belongs in no log.
        kind = "none" if isinstance(value, str) else type(value).__name__
        raise InputError(f"{where}: field {field!r}: expected text, found {kind}; correct the row or leave it out")
    return value


def without(rows: Sequence[Row], other: Iterable[Row]) -> list[Row]:
    """Return the rows whose question and answer do not both occur in `other`."""
    taken = {_key(row) for row in other}
    return [row for row in rows if _key(row) not in taken]


def shared(rows: Sequence[Row], other: Iterable[Row]) -> int:
    """Return how many rows have a question and answer that both occur in `other`."""
    return len(rows) - len(without(rows, other))


def same_prompts(rows: Sequence[Row], other: Iterable[Row]) -> int:
    """Return how many rows ask what a row of `other` asks, whatever the answer: worth a warning, no more."""
    asked = {plain(row.prompt) for row in other}
    return sum(plain(row.prompt) in asked for row in rows)


def plain(text: str) -> str:
    """Return a text as it is compared: Unicode NFKC, case folded, single spaces.

    Source: Unicode Standard, section 3.13, definition D147 (compatibility caseless match).
    """
    folded = unicodedata.normalize("NFD", text)
    for _ in range(2):
        folded = unicodedata.normalize("NFKC", folded.casefold())
    return " ".join(folded.split())


def _key(row: Row) -> tuple[str, str]:
    return plain(row.prompt), plain(row.completion)


def digest_rows(rows: Sequence[Row]) -> str:
    """Return the digest of rows; it does not depend on field names or the file's layout."""
    return digest_bytes(json.dumps([[row.prompt, row.completion] for row in rows], separators=(",", ":")).encode())
