"""Publishers and collectors beside each other, without a lock that a dead client could hold.

A publisher first says what it is about to name, and looks whether a collector is at work; a collector first says that
it is at work, and looks at what publishers have said. Whichever came later sees the other: so a publisher waits for a
collector, and a collector spares what is claimed. What a killed client leaves behind is ignored once it is old.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from eul_serve.errors import BundleFormatError, BusyError
from eul_serve.format.config import parse_object
from eul_serve.registry.store import Key, Store

PUBLISH_SECONDS = 24 * 3600.0
"""How long a publication may take; a claim that is older is of a client that died."""
COLLECT_SECONDS = 900.0
"""How long a collector may work before it has to say anew that it does."""
WAIT_SECONDS = 0.2
"""Between two looks whether a collector has ended."""
Spared = Callable[[], frozenset[str]]
"""Returns the digests that a collector must leave; raises BusyError where it has worked for too long."""
_KEY = "claims"
_COLLECTOR = {"collector": True}


class Claims:
    """The claims of one registry."""

    def __init__(
        self,
        store: Store,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Take a registry's claims.

        Args:
            store: Where they are.
            sleep: Waits some seconds.
            clock: Seconds that never go back, by this client's own clock; None for that of its machine.
        """
        self._store, self._sleep, self._clock = store, sleep, clock or time.monotonic

    @contextmanager
    def claimed(self, digests: Iterable[str]) -> Iterator[Callable[[], None]]:
        """Keep revisions and blobs from collectors while the context lasts, whether they are there yet or not.

        Args:
            digests: Their digests.

        Yields:
            A function that raises BusyError where it lasts so long that a collector may soon pass the claim by; call it
            before anything is named. Until then no collector removes them.
        """
        started = self._clock()
        with self._said({"digests": sorted(digests)}):
            while self._collecting():
                self._sleep(WAIT_SECONDS)
            yield partial(self._check_claim, started)

    @contextmanager
    def collecting(self, *, dry_run: bool = False) -> Iterator[Spared]:
        """Be a collector while the context lasts.

        Args:
            dry_run: Only look: nothing is said or removed, and no publisher waits.

        Yields:
            A function that returns what must be spared now; call it before every removal.

        Raises:
            BusyError: The work took longer than a collector may take; what was removed is removed, run it again.
        """
        started = self._clock()

        def spared() -> frozenset[str]:
            self._check_time(started, "collection")
            return claimed

        with nullcontext() if dry_run else self._said(_COLLECTOR):
            claimed = self._claimed(tidy=not dry_run)
            yield spared

    @contextmanager
    def repairing(self, revision: str) -> Iterator[Callable[[], None]]:
        """Be the only one who repairs a revision while the context lasts.

        Args:
            revision: The revision.

        Yields:
            A function that raises BusyError where it lasts too long for the others to wait; call it before a removal.
        """
        while True:
            started = self._clock()
            with self._said({"repairs": revision}):
                if [words.get("repairs") for words in self._live(COLLECT_SECONDS, tidy=True)].count(revision) == 1:
                    yield partial(self._check_time, started, "repair")
                    return
            # Each of two sees the other, and goes away: one of them comes back first.
            self._sleep(WAIT_SECONDS * (1 + secrets.randbelow(5)))

    def _check_claim(self, started: float) -> None:
        if self._clock() - started > PUBLISH_SECONDS / 2:
            raise BusyError("this took more than half a day, and a collector may soon remove some of it; run it again")

    def _check_time(self, started: float, what: str) -> None:
        if self._clock() - started > COLLECT_SECONDS / 2:
            raise BusyError(f"the {what} took too long for publishers to wait; run it again, it goes on")

    @contextmanager
    def _said(self, words: dict[str, Any]) -> Iterator[None]:
        key = (_KEY, f"{secrets.token_hex(16)}.json")
        try:  # the answer may be lost of a claim that was made
            self._store.create(key, json.dumps(words).encode())
            yield
        finally:
            self._store.remove(key)

    def _collecting(self) -> bool:
        return any(words.get("collector") for words in self._live(COLLECT_SECONDS, tidy=True))

    def _claimed(self, *, tidy: bool) -> frozenset[str]:
        found = (words.get("digests", ()) for words in self._live(PUBLISH_SECONDS, tidy=tidy))
        return frozenset(digest for digests in found for digest in digests)

    def _live(self, seconds: float, *, tidy: bool) -> Iterator[dict[str, Any]]:
        for name in self._store.list(_KEY):
            key = (_KEY, name)
            age, data = self._store.age(key), self._store.read(key)
            if age is None or data is None:
                continue  # its client has just ended
            if age > PUBLISH_SECONDS:
                if tidy:
                    self._store.remove(key)
            elif age <= seconds:
                yield self._words(key, data)

    def _words(self, key: Key, data: bytes) -> dict[str, Any]:
        try:
            words = parse_object(data, "/".join(key))
            return {**words, "digests": [str(digest) for digest in words.get("digests", ())]}
        except (BundleFormatError, TypeError) as error:
            # Whoever wrote it may be at work, so nobody may pass it by before it is old.
            raise BundleFormatError(
                f"{self._store.url}: {'/'.join(key)} is no claim; where nobody publishes or collects, remove it"
            ) from error
