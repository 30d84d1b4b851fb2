"""What keeps a reference from moving, told once for as long as it is the same."""

from __future__ import annotations

import logging

from eul_serve.errors import EulError
from eul_serve.format import Reference
from eul_serve.swap.arrival import reason_of
from eul_serve.swap.feed import Feed
from eul_serve.swap.residency import Residency

_log = logging.getLogger("eul_serve.swap")


class Complaints:
    """The last complaint about each reference."""

    def __init__(self, residency: Residency, feed: Feed) -> None:
        self._residency = residency
        self._feed = feed
        self._last: dict[str, str] = {}
        self._unread = ""

    def tell(self, reference: Reference, error: EulError) -> None:
        """Log what keeps a reference where it is, unless that was said of it last.

        Args:
            reference: The reference.
            error: What went wrong.
        """
        if self._last.get(str(reference)) == str(error):
            return
        self._last[str(reference)] = str(error)
        place = "stays where it is" if self._residency.pointed(reference) else "is served by nothing"
        _log.warning("%s %s: %s", reference, place, error)
        self._feed.tell("swap_refused", reference=str(reference), reason=reason_of(error))

    def tell_unread(self, error: EulError) -> None:
        """Log that what is ordered in the registry cannot be read, unless that was said last.

        Args:
            error: Why.
        """
        if self._unread != str(error):
            self._unread = str(error)
            _log.error("what is banned and deleted cannot be read, so what was read before stays in force: %s", error)

    def end_unread(self) -> None:
        """Forget that: it was read."""
        if self._unread:
            _log.info("what is banned and deleted can be read again")
        self._unread = ""

    def end(self, reference: Reference) -> None:
        """Forget what was said: the reference is where it is to be."""
        self._last.pop(str(reference), None)
