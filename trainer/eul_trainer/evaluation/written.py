"""Reading again what `eval`, `attack` and `sequence` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError

METRICS, REPORT, ATTACK, SEQUENCE = "metrics.json", "report.html", "attack.json", "sequence.json"
KEYS = {ATTACK: {"systems", "code", "attacks"}, SEQUENCE: {"base", "before", "orders", "code"}}
"""What each file has at least; any other one is taken for `metrics.json`."""


def read_written(path: Path) -> dict[str, Any]:
    """Read `metrics.json`, `attack.json` or `sequence.json`.

    Args:
        path: The file.

    Returns:
        Its contents.

    Raises:
        InputError: It cannot be read, or is something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot read: {error.strerror}; name what `{_writer(path)}` wrote") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r}: expected JSON, found {error}; evaluate again") from error
    expected = KEYS.get(path.name, {"systems", "code", "verdicts"})
    if not isinstance(found, dict) or not expected <= set(found):
        raise InputError(f"{str(path)!r}: expected what `{_writer(path)}` writes; evaluate again")
    return found


def _writer(path: Path) -> str:
    """Return the command that writes such a file."""
    return {ATTACK: "attack", SEQUENCE: "sequence"}.get(path.name, "eval")
