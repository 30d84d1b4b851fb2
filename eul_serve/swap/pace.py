"""How long a server waits between two polls: never in step with others, and longer while the registry has trouble."""

from __future__ import annotations

import random

JITTER = 0.2
"""By which share a wait may be shorter than it is asked for; it is never longer, as a ban is obeyed within one poll."""
MOST_TIMES, MOST_SECONDS = 16.0, 60.0
"""How far a wait may grow: so many times the poll, and no longer than this unless the poll itself is."""


class Pace:
    """The pace of one server."""

    def __init__(self, poll_seconds: float, random_source: random.Random | None = None) -> None:
        """Begin at the pace that was asked for.

        Args:
            poll_seconds: Seconds between two polls.
            random_source: Where the jitter comes from; None takes one of its own.
        """
        self._poll_seconds = poll_seconds
        self._random = random_source or random.Random()  # noqa: S311  # no secret
        self._most = max(poll_seconds, min(MOST_TIMES * poll_seconds, MOST_SECONDS))
        self._troubles = 0

    def first(self) -> float:
        """Return the seconds to wait before the second poll: servers that start together do not poll together."""
        return self._poll_seconds * self._random.random()

    def after(self, seconds: float, *, read: bool) -> float:
        """Return the seconds to wait after a poll.

        Args:
            seconds: How long the poll took.
            read: Whether the registry could be read.

        Returns:
            About the seconds that were asked for; twice as many after each poll in a row that failed, or that took
            longer than those, and then anything between half of it and all, so that servers do not come back at once.
        """
        slow = seconds > self._poll_seconds
        self._troubles = self._troubles + 1 if slow or not read else 0
        if not self._troubles:
            return self._poll_seconds * (1.0 - JITTER * self._random.random())
        wait = min(self._poll_seconds * 2.0 ** min(self._troubles, 32), self._most)
        return wait * (1.0 - 0.5 * self._random.random())
