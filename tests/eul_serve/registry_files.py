"""The files of a registry in a directory, as somebody with a text editor sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eul_serve.audit.chain import Entry
from eul_serve.registry.chain import next_entry, place


def alias_files(root: Path, name: str, alias: str) -> list[Path]:
    """Return the files of an alias's moves, oldest first."""
    return sorted((root / "names" / name / "aliases" / alias).iterdir())


def move_by_hand(root: Path, name: str, alias: str, revision: str, reason: str | None = None) -> Path:
    """Move an alias as something other than our registry would: no rule is asked."""
    last = Entry.from_line(alias_files(root, name, alias)[-1].read_bytes())
    assert last is not None
    facts = {"actor": None, "reason": reason, "revision": revision}
    entry = next_entry("promote", facts, last)
    path = root.joinpath(*place(("names", name, "aliases", alias), entry.number))
    path.write_bytes(entry.to_line())
    return path


def acts(root: Path) -> list[dict[str, Any]]:
    """Return the acts of a registry's log, oldest first."""
    lines = [json.loads(path.read_bytes()) for path in sorted((root / "log").iterdir())]
    return [{"act": line["act"], "at": line["at"], **line["facts"]} for line in lines]
