"""Rows of data: a prompt and the completion that is to be forgotten or kept, one JSON object per line."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError
from eul_serve.format.digest import digest_bytes

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that Git LFS left in place of the data."""

Watch = Callable[[int, int], None]
"""Told how much is done, and of how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Which fields of a row are read."""

    prompt: str = "prompt"
    """Field with the question."""
    completion: str = "completion"
    """Field with the answer."""
    group: str | None = None
    """Field with the row's group, for evaluation; a row without it is in the group `all`."""
    extra: tuple[str, ...] = ()
    """Further fields that are kept where a row has them, as they are."""


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
    """Further keys that a data builder writes beside the three; reading keeps those it is asked for."""


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
    return list(stream_rows(path, fields or Fields()))


def stream_rows(path: Path, fields: Fields, watch: Watch | None = None) -> Iterator[Row]:
    """Read a JSON-lines file row by row, as `read_rows` does.

    Args:
        path: The file.
        fields: The fields to read.
        watch: Told after every row about the bytes read and the bytes in all.

    Yields:
        The rows, at least one.
    """
    for found, where in stream_objects(path, watch):
        yield _parse(found, where, fields)


def stream_objects(path: Path, watch: Watch | None = None) -> Iterator[tuple[dict[str, Any], str]]:
    """Read the objects of a JSON-lines file one by one, each with its file and line."""
    total, done, empty = 0, 0, True
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            for number, line in enumerate(file, 1):
                done += len(line)
                if line.strip():
                    yield _object(line, f"{path}:{number}"), f"{path}:{number}"
                    empty = False
                if watch:
                    watch(done, total)
    except OSError as error:
        raise InputError(f"data file {str(path)!r}: cannot read: {error.strerror}") from error
    if empty:
        raise InputError(f"data file {str(path)!r}: expected JSON lines, found an empty file")


def _object(line: bytes, where: str) -> dict[str, Any]:
    if line.startswith(LFS_POINTER):
        raise InputError(f"{where}: looks like a Git LFS pointer, not the data itself; run git lfs pull")
    try:
        found = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: expected UTF-8 text, found {error.reason}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected one JSON object per line, found {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(found).__name__}")
    return found


def _parse(found: dict[str, Any], where: str, fields: Fields) -> Row:
    group = found.get(fields.group, "all") if fields.group else "all"
    return Row(
        prompt=text_field(found, fields.prompt, where, "--prompt-field"),
        completion=text_field(found, fields.completion, where, "--completion-field"),
        group=str(group),
        where=where,
        extra={name: found[name] for name in fields.extra if name in found},
    )


def text_field(found: Mapping[str, Any], field: str, where: str, option: str | None = None) -> str:
    """Return a field of a row that must be text.

    Args:
        found: The row.
        field: The field.
        where: File and line of the row, for the message.
        option: Option that names another field, for the message.

    Returns:
        The text.

    Raises:
        InputError: The field is missing, is no text, or blank.
    """
    if field not in found:
        names = ", ".join(sorted(map(str, found)))[:200] or "none"
        step = f"name another with {option}" if option else "add it"
        raise InputError(f"{where}: missing field {field!r}; the row has {names}; {step}")
    value = found[field]
    if not isinstance(value, str) or not value.strip():
        # Its kind alone: what a person asked to have forgotten belongs in no log.
        kind = "none" if isinstance(value, str) else type(value).__name__
        raise InputError(f"{where}: field {field!r}: expected text, found {kind}; correct the row or leave it out")
    return value


def without(rows: Sequence[Row], other: Iterable[Row]) -> list[Row]:
    """Return the rows whose question and answer do not both occur in `other`."""
    taken = {row_key(row) for row in other}
    return [row for row in rows if row_key(row) not in taken]


def shared(rows: Sequence[Row], other: Iterable[Row]) -> int:
    """Return how many rows have a question and answer that both occur in `other`."""
    return len(rows) - len(without(rows, other))


def same_prompts(rows: Iterable[Row], other: Iterable[Row]) -> int:
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


def row_key(row: Row) -> tuple[str, str]:
    """Return what two rows have in common that count as one."""
    return plain(row.prompt), plain(row.completion)


def digest_rows(rows: Sequence[Row]) -> str:
    """Return the digest of rows; it does not depend on field names or the file's layout."""
    return digest_bytes(json.dumps([[row.prompt, row.completion] for row in rows], separators=(",", ":")).encode())
