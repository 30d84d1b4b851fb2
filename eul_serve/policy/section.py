"""One table of a TOML file, read with its place in every error."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from eul_serve.errors import InputError

MAX_POLICY_BYTES = 16 << 20
_T = TypeVar("_T")
_Word = TypeVar("_Word", bound=str)


@dataclass(frozen=True, slots=True)
class Section:
    """A table and where it stands."""

    where: str
    """File and table, for messages."""
    table: Mapping[str, object]
    """Its keys and values."""

    @classmethod
    def read(cls, path: Path, what: str) -> Section:
        """Read a TOML file of at most 16 MiB. Links are followed, as Kubernetes mounts files through them.

        Args:
            path: The file.
            what: What it is, for messages.

        Returns:
            Its outermost table.

        Raises:
            InputError: It cannot be read, or is not TOML.
        """
        where = f"{what} {str(path)!r}"
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_POLICY_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{where}: cannot read: {reason}; expected a TOML file") from error
        if len(data) > MAX_POLICY_BYTES:
            raise InputError(f"{where}: expected at most {MAX_POLICY_BYTES} bytes")
        try:
            return cls(where, tomllib.loads(data.decode("utf-8")))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: expected TOML, found: {error}") from error

    def allow(self, *keys: str) -> None:
        """Refuse every other key with an InputError, so that a slip of the pen never weakens a policy."""
        for key in self.table:
            if key not in keys:
                raise InputError(f"{self.where}: unknown key {key[:100]!r}; allowed are {', '.join(keys)}")

    def sections(self, key: str) -> Iterator[tuple[str, Section]]:
        """Yield the tables in the table `key`, by name."""
        for name, value in self.section(key).table.items():
            where = f"{self.where}: {key}.{name[:100]}"
            if not isinstance(value, dict):
                raise InputError(f"{where}: expected a table, found {type(value).__name__}")
            yield name, Section(where, value)

    def section(self, key: str) -> Section:
        """Return the table `key`, empty where it is missing."""
        value = self.table.get(key, {})
        if not isinstance(value, dict):
            raise InputError(f"{self.where}: {key}: expected a table, found {type(value).__name__}")
        return Section(f"{self.where}: {key}", value)

    def flag(self, key: str) -> bool:
        """Return a true or false, false where it is missing."""
        value = self.table.get(key, False)
        if not isinstance(value, bool):
            raise InputError(f"{self.where}: {key}: expected true or false, found {value!r:.100}")
        return value

    def text(self, key: str) -> str | None:
        """Return a string, None where it is missing."""
        value = self.table.get(key)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{self.where}: {key}: expected a string, found {value!r:.100}")
        return value

    def choice(self, key: str, words: Sequence[_Word]) -> _Word | None:
        """Return one of some words, None where it is missing."""
        text = self.text(key)
        found = next((word for word in words if word == text), None)
        if text is not None and found is None:
            raise InputError(f"{self.where}: {key}: expected one of {', '.join(words)}, found {text[:100]!r}")
        return found

    def number(self, key: str, least: int, most: int) -> int | None:
        """Return a whole number in a range, None where it is missing."""
        value = self.table.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise InputError(f"{self.where}: {key}: expected a whole number, {least} to {most}, found {value!r:.100}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings, empty where it is missing."""
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{self.where}: {key}: expected a list of strings, found {value!r:.100}")
        return tuple(value)

    def parsed(self, key: str, parse: Callable[[str], _T], text: str) -> _T:
        """Return what `parse` makes of a text, with this place in its error."""
        try:
            return parse(text)
        except InputError as error:
            raise InputError(f"{self.where}: {key}: {error}") from error
