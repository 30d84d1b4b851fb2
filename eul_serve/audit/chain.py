"""The form of an audit log, and of a registry's: JSON lines, each of which has the digest of the one before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.digest import digest_bytes

START = "sha256:" + "0" * 64
"""What stands in the place of a digest before the first line."""
MAX_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One line."""

    number: int
    """Its place, from 1."""
    at: str
    """When, UTC, ISO 8601."""
    act: str
    """What was done or refused."""
    facts: Mapping[str, Any]
    """With what."""
    before: str
    """Digest of the line before it."""

    @property
    def digest(self) -> str:
        """The digest of all of it."""
        return digest_bytes(_canonical(self._content()))

    def to_line(self) -> bytes:
        """Return the line, with its digest and its end."""
        return _canonical({**self._content(), "digest": self.digest}) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Entry | None:
        """Return the entry of a whole line; None of anything else, such as a line that was changed."""
        try:
            found = json.loads(line)
            entry = cls(found["number"], found["at"], found["act"], found["facts"], found["before"])
            return entry if entry.to_line() == line else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def _content(self) -> dict[str, Any]:
        return {
            "act": self.act, "at": self.at, "before": self.before, "facts": dict(self.facts), "number": self.number
        }  # fmt: skip


def read_chain(path: Path) -> Iterator[Entry]:
    """Read a log and check that nothing in it was changed, moved, added or taken out.

    What a killed writer left of a line is passed over; it stands at the end, or before the line of the next start.
    Lines cut off at the end leave no trace in the file: compare the last digest with one that was kept elsewhere.

    Args:
        path: The log.

    Yields:
        Its entries.

    Raises:
        InputError: It cannot be read.
        BundleFormatError: It was changed; names the line.
    """
    try:
        with path.open("rb") as file:
            yield from _checked(file, path)
    except OSError as error:
        raise InputError(f"audit log {str(path)!r}: cannot read: {error.strerror}") from error


def _checked(lines: Iterable[bytes], path: Path) -> Iterator[Entry]:
    before, number = START, 0
    for place, line in enumerate(lines, 1):
        entry = Entry.from_line(line)
        if entry is None:
            continue  # half a line; were it a whole one that was spoiled, the next would not fit
        if (entry.before, entry.number) != (before, number + 1):
            raise BundleFormatError(
                f"audit log {str(path)!r}: line {place}: expected entry {number + 1} after {before}, found entry "
                f"{entry.number} after {entry.before}; something was changed, moved, added or taken out"
            )
        before, number = entry.digest, entry.number
        yield entry


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
