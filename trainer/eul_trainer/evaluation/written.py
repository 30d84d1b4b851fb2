"""Reading again what `eval` and `attack` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError

METRICS, REPORT, ATTACK = "metrics.json", "report.html", "attack.json"


def read_written(path: Path) -> dict[str, Any]:
    """Read `metrics.json` or `attack.json`.

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
        raise InputError(f"{str(path)!r}: cannot read: {error.strerror}; name what `eval` or `attack` wrote") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r}: expected JSON, found {error}; evaluate again") from error
    expected = "attacks" if path.name == ATTACK else "verdicts"
    if not isinstance(found, dict) or not {"systems", "code", expected} <= set(found):
        raise InputError(f"{str(path)!r}: expected what `eval` or `attack` writes; evaluate again")
    return found
