"""The log of a request: JSON lines of starts, losses and endings, never a word of its rows.

    {"event": "start", "attempt": 1, "pid": 4711, "host": "node-3", "time": "2026-11-24T10:00:00+00:00"}
    {"event": "step", "step": 1, "loss": 3.1, ...}
    {"event": "done", "seconds": 61.5, "resumed_at": 0}
    {"event": "failed", "seconds": 3.0, "reason": "..."}

An attempt whose process was killed has no ending of its own; whoever notices writes it.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eul_serve.errors import CapacityError

TAIL = 4096
"""Bytes at the end of a log that hold its last line."""
CUT_OFF = "cut off"
"""Reason of an attempt that left no ending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a request."""

    seconds: float | None = None
    """How long it took; None where its process was killed."""
    reason: str | None = None
    """Why it failed; None where it ended well."""
    resumed_at: int = 0
    """Step at which it went on from an earlier attempt's checkpoint."""


def write_event(path: Path, event: str, **facts: object) -> None:
    """Append a line to a log and hand it to the system at once, so that a kill loses none.

    Args:
        path: The log.
        event: start, step, done or failed.
        **facts: Plain values; never text of a row.

    Raises:
        CapacityError: It cannot be written.
    """
    line = json.dumps({"event": event, **facts}, sort_keys=True) + "\n"
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise CapacityError(f"log {str(path)!r}: cannot write: {error.strerror}; free space") from error


def write_start(path: Path, attempt: int) -> None:
    """Log that this process begins an attempt."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_event(path, "start", attempt=attempt, pid=os.getpid(), host=socket.gethostname(), time=now)


def read_attempts(path: Path) -> list[Attempt]:
    """Return the attempts that a log tells of, those of earlier calls included."""
    found: list[Attempt] = []
    for event in _events(path):
        if event["event"] == "start":
            found.append(Attempt(reason=CUT_OFF))
        elif event["event"] in ("done", "failed") and found:
            found[-1] = Attempt(
                seconds=event.get("seconds"), reason=event.get("reason"), resumed_at=event.get("resumed_at", 0)
            )
    return found


def last_step(path: Path) -> int:
    """Return the last step that a log tells of; 0 before the first."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    event = next((found for found in map(_parse, reversed(lines)) if found), {})
    return int(event.get("step", 0))


def _events(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [event for event in map(_parse, lines) if event]


def _parse(line: str) -> dict[str, Any] | None:
    """Return a line's event; None for half a line, which a kill can leave."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
