"""One writer at a time in a repository, of a registry whose tags are simply overwritten.

OCI has no "put this tag unless it is there". A tag is a register that all clients read and write, and on registers
alone Fischer's algorithm gives mutual exclusion, at the price of a wait: whoever sees the lock free writes its own
nonce, waits, and has the lock where the nonce is still there.

    A reads "free"   A writes a      wait ...      A reads a: it holds the lock
       B reads "free"   B writes b        had B written later, A would read b

What this assumes of time, and what happens where it is wrong:

- Between reading "free" and the end of writing a nonce no more than `delay` passes, for every client; all clients of a
  registry use the same `delay`. A client that notices it was slower does not take the lock: it treats its own nonce as
  somebody else's and waits until that has expired. So slowness costs time and breaks nothing, as long as a write
  takes effect before its answer arrives or not at all.
- A holder is done within `hold` of writing its nonce, or stops: it looks at its own clock before it writes the record.
  Others count `hold` from when they first saw the nonce, each on its own steady clock; no two clocks are compared. A
  process that is stopped between that look and its write, for longer than the rest of `hold`, can still make a record
  that somebody else has made; so can a write that reaches the registry later than that.

A freed lock has a mark of its own; a dead holder's expires after the `hold` that its nonce states.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from eul_serve.errors import BundleFormatError, BusyError, EulError
from eul_serve.registry.oci.image import Image
from eul_serve.registry.oci.repository import Repository
from eul_serve.registry.oci.tags import LOCK

LOCK_TYPE = "application/vnd.eul.lock.v1"
NONCE = "vnd.eul.lock.nonce"
HOLD = "vnd.eul.lock.hold"
MAX_HOLD = 600.0
"""Longest that another client's nonce is believed to say, in seconds."""
PATIENCE_SECONDS = 120.0
"""How long a client waits for its turn."""
_FREE = Image(artifact_type=LOCK_TYPE, annotations={NONCE: ""}).to_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A lock that is ours."""

    nonce: str
    """What we wrote."""
    until: float
    """When it ends, by this process's steady clock."""

    @property
    def lasts(self) -> bool:
        """Whether a write may still begin."""
        return time.monotonic() < self.until


@dataclass(slots=True, kw_only=True)
class _Watch:
    """What a client that waits has seen of the lock."""

    nonce: str = ""
    since: float = 0.0
    hold: float = 0.0
    late: int = 0
    """How often its own write took too long."""

    def free(self, nonce: str, hold: float) -> bool:
        """Return whether the lock can be had, with this nonce there now."""
        now = time.monotonic()
        if nonce != self.nonce:
            self.nonce, self.since, self.hold = nonce, now, hold
        return not nonce or now - self.since > self.hold


class Lock:
    """The lock of one repository."""

    def __init__(self, repository: Repository, delay: float, hold: float) -> None:
        self._repository, self._delay, self._hold = repository, delay, hold
        self._mutex = threading.Lock()

    @contextmanager
    def held(self, unless: Callable[[], bool] = lambda: False) -> Iterator[Hold | None]:
        """Wait for the lock, and free it afterwards.

        Args:
            unless: Asked while others hold it: whether what it was wanted for is settled meanwhile.

        Yields:
            The lock, whose user asks whether it lasts before each write that needs it; None where it is not needed.

        Raises:
            BusyError: Others held it for too long.
        """
        with self._mutex:
            hold = self.acquire(unless)
            try:
                yield hold
            finally:
                # Where this fails, or comes too late to be ours to free, the nonce expires by itself.
                if hold and hold.lasts:
                    with suppress(EulError):
                        self._repository.put_manifest(LOCK, _FREE)

    def acquire(self, unless: Callable[[], bool] = lambda: False) -> Hold | None:
        """Return the lock once it is ours, or None where it is not needed; it expires where nobody frees it."""
        self._repository.prepare()
        deadline, seen, again = time.monotonic() + PATIENCE_SECONDS, _Watch(), False
        while time.monotonic() < deadline:
            if again:
                if unless():
                    return None
                # Apart from each other, and further apart the slower the registry is: those who wait for the same
                # lock must not all write when it is free, or their own number makes each of them too late.
                time.sleep(self._delay * random.uniform(0.5, 1.5) * 2 ** min(seen.late, 5))  # noqa: S311 - no secret
            again = True
            if hold := self._try(seen):
                return hold
        raise BusyError(
            f"registry {self._repository}: others held its lock, or it answers more slowly than {self._delay} s, for "
            f"{PATIENCE_SECONDS:.0f} s; run again"
        )

    def _try(self, seen: _Watch) -> Hold | None:
        """Return the lock where it was free and nobody else wrote after us."""
        asked = time.monotonic()
        if not seen.free(*self._read()):
            return None
        nonce, began = secrets.token_hex(16), time.monotonic()
        self._write(nonce)
        if time.monotonic() - asked > self._delay:
            seen.late += 1
            return None  # now our own nonce has to expire, as if it were somebody else's
        time.sleep(self._delay)
        if self._read()[0] != nonce:
            return None
        return Hold(nonce=nonce, until=began + self._hold - self._delay)

    def _write(self, nonce: str) -> None:
        notes = {NONCE: nonce, HOLD: f"{self._hold:.3f}"}
        self._repository.put_manifest(LOCK, Image(artifact_type=LOCK_TYPE, annotations=notes).to_bytes())

    def _read(self) -> tuple[str, float]:
        """Return the nonce that is there and how long it holds; an empty one where the lock is free."""
        if not (stored := self._repository.manifest(LOCK)):
            return "", 0.0
        where = f"{self._repository} lock"
        notes = Image.parse(stored.data, where).annotations
        try:
            hold = float(notes.get(HOLD, "0"))
        except ValueError:
            raise BundleFormatError(f"{where}: expected seconds, found {notes[HOLD]!r:.40}; delete {LOCK}") from None
        return notes.get(NONCE, ""), min(hold, MAX_HOLD) if hold >= 0 else MAX_HOLD
