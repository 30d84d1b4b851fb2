"""Whether there is a registry, and of which layout: said by one small record."""

from __future__ import annotations

import time

from eul_serve.errors import InputError, NotFoundError
from eul_serve.format.config import parse_object
from eul_serve.registry.store import LAYOUT, MARK, Store


class Mark:
    """The mark of one registry."""

    def __init__(self, store: Store, recheck_seconds: float) -> None:
        self._store = store
        self._recheck_seconds = recheck_seconds
        self._good_until = 0.0

    def check(self) -> None:
        """Return where there is a registry that we can read.

        Raises:
            NotFoundError: There is none.
            InputError: Its layout is another one.
        """
        if time.monotonic() < self._good_until:
            return
        data = self._store.read(MARK)
        if data is None:
            raise NotFoundError(
                f"{self._store.url}: no registry there; `eul publish` makes one in a new or empty directory"
            )
        if (found := parse_object(data, MARK[0])) != parse_object(LAYOUT, MARK[0]):
            raise InputError(f"{self._store.url}: expected layout 2, found {found!s:.100}; use the eul that wrote it")
        self._good_until = time.monotonic() + self._recheck_seconds

    def may_be_made(self) -> bool:
        """Return whether there is a registry; where there is none, raise NotFoundError unless the place is empty."""
        try:
            self.check()
        except NotFoundError:
            names = self._store.list()
            if MARK[0] in names:  # another client has just made it
                self.check()
                return True
            if names:
                raise
            return False
        return True

    def make(self) -> None:
        """Make the mark where there is none."""
        if not self.may_be_made():
            self._store.create(MARK, LAYOUT)
            self.check()
