"""Measurements on disk as they come, one JSON line each, so that a killed benchmark goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError

Key = tuple[Any, ...]


class Ledger:
    """Measurements by key. The first line of the file says what all of them belong to."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.found: dict[Key, dict[str, Any]] = {}
        lines = _whole_lines(path)
        # Two that began side by side have both written a first line, and must have written the same.
        heads = [*lines[:1], *(line for line in lines[1:] if "key" not in line)]
        if not lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"identity": dict(identity)})
        elif any(head.get("identity") != json.loads(json.dumps(identity)) for head in heads):
            raise InputError(f"ledger {str(path)!r}: it belongs to other settings or data; give another --work folder")
        self.found.update((tuple(line["key"]), line["value"]) for line in lines if "key" in line)

    def __contains__(self, key: Key) -> bool:
        return key in self.found

    def __getitem__(self, key: Key) -> dict[str, Any]:
        return self.found[key]

    def add(self, key: Key, value: Mapping[str, Any]) -> dict[str, Any]:
        """Write a measurement down and return it as a later run will read it."""
        self._append({"key": list(key), "value": dict(value)})
        self.found[key] = json.loads(json.dumps(value))
        return self.found[key]

    def _append(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=True) + "\n")


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file; a last line that a kill cut off is taken out of the file."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines() if line.strip()]
