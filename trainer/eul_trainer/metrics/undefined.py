"""A measure that has no value for the rows at hand: a marked gap in a report, never a zero."""

from __future__ import annotations

from eul_serve.errors import EulError


class UndefinedError(EulError):
    """A measure has no value here; the message says why, and what would give it one."""
