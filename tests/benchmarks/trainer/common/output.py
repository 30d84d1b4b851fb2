"""Results in their committed form: JSON that is the same for the same numbers."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DIGITS = 4
"""Decimals of a committed number."""


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record with its numbers rounded; what is not finite becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(record), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def deliver(record: dict[str, Any], folder: Path | None, name: str) -> None:
    """Print a record, and write it to a folder where one is given."""
    if folder is not None:
        write_json(folder / f"{name}.json", record)
    sys.stdout.write(json.dumps(rounded(record), indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return a record, empty where there is none yet."""
    if not path.exists():
        return {}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def command_line(script: str, arguments: Sequence[str], folder: str = "trainer") -> str:
    """Return the line that made a result; of a machine's own folders only the last name stays."""
    shown = [Path(part).name if Path(part).is_absolute() else part for part in arguments]
    return f"python tests/benchmarks/{folder}/{script} {shlex.join(shown)}"


def rounded(value: Any) -> Any:
    """Return plain JSON with its numbers rounded."""
    if isinstance(value, dict):
        return {str(name): rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    return value


def mean(values: list[float]) -> float:
    """Return the mean of at least one number."""
    return sum(values) / len(values)


def spread(values: list[float]) -> float:
    """Return the sample standard deviation, 0 for a single number."""
    if len(values) < 2:
        return 0.0
    middle = mean(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))
