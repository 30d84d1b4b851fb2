"""When something was, as logs and histories have it."""

from __future__ import annotations

import datetime


def utc_now(timespec: str = "milliseconds") -> str:
    """Return the time now, UTC in ISO 8601.

    Args:
        timespec: How exact, as `datetime.isoformat` calls it.

    Returns:
        The text.
    """
    return datetime.datetime.now(datetime.UTC).isoformat(timespec=timespec)
