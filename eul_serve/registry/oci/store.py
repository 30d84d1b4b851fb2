"""A registry's store in an OCI registry: the one that a company's container images are in already.

    oci://host/path          registry.json, log, orders, claims, and the index of names, as tagged manifests
    oci://host/path/<name>   one bundle: revisions, moves of its aliases, signatures, and its files as blobs

A revision is an artifact that `oras pull` and any other client of OCI reads; `host/path/<name>:stable` is where the
alias `stable` points. Signatures are its referrers. Everything else is a record under a tag of its own, see `tags.py`.

OCI's tags are overwritten without a question, and `create` must not do that: see `lock.py` for how one writer at a
time is had, and for what it assumes of time. Times are the registry's: a record's manifest says when it was made by
the `Date` of the registry's answers, to about a second, and its age is told by the same clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from eul_serve.format import FileEntry
from eul_serve.registry.oci.blobs import Blobs
from eul_serve.registry.oci.place import Place
from eul_serve.registry.oci.records import Records
from eul_serve.registry.oci.wire import Wire
from eul_serve.registry.store import Key, Opened

DELAY_SECONDS = 0.5
"""Longest time from reading a free lock to having written to it; all clients of a registry use the same."""
HOLDS = 12
"""How many delays a lock is held at most, where nothing else is said."""


class OciStore:
    """A `Store` in an OCI registry; safe for many clients and threads."""

    def __init__(self, url: str, *, delay: float = DELAY_SECONDS, hold: float | None = None) -> None:
        """Name the place; nothing is asked before the first call.

        Args:
            url: `oci://host[:port]/path`.
            delay: Seconds that the slowest write may take; each record that is made waits that long.
            hold: Seconds after which a client that died in the middle is in nobody's way; None for 12 delays.

        Raises:
            InputError: Another URL.
        """
        self._wire = Wire(Place.parse(url))
        self._records = Records(self._wire, delay, HOLDS * delay if hold is None else hold)
        self._blobs = Blobs(self._records)

    def __repr__(self) -> str:
        return f"OciStore({self.url!r})"

    @property
    def url(self) -> str:
        """Where it is, for messages; it never holds credentials."""
        return str(self._wire.place)

    def read(self, key: Key) -> bytes | None:
        """Return a record, None where there is none."""
        return self._records.read(key)

    def create(self, key: Key, data: bytes) -> bool:
        """Make a record whole, unless there is one; return whether it has these bytes now."""
        return self._records.create(key, data)

    def remove(self, key: Key) -> None:
        """Remove a record; nothing happens where there is none."""
        self._records.remove(key)

    def list(self, *prefix: str) -> list[str]:
        """Return the names directly below a path, sorted."""
        return self._records.below(prefix)

    def age(self, key: Key) -> float | None:
        """Return how many seconds ago a record was made, by the registry's clock; None where there is none."""
        return self._records.age(key)

    def holds(self, name: str, entry: FileEntry) -> bool:
        """Return whether a blob is there, with the right size."""
        return self._blobs.holds(name, entry)

    def put(self, name: str, entry: FileEntry, source: Opened) -> None:
        """Store a blob whole, or raise BundleFormatError where the bytes are not those of the entry."""
        self._blobs.put(name, entry, source)

    def chunks(self, name: str, entry: FileEntry) -> Iterator[bytes]:
        """Yield a blob's bytes as they are stored; NotFoundError where it is missing."""
        return self._blobs.chunks(name, entry)

    def blobs(self, names: Iterable[str]) -> Iterator[tuple[str, str, float]]:
        """Yield each blob of these names as (name, digest, age in seconds)."""
        return self._blobs.blobs(names)

    def drop(self, name: str, digest: str) -> None:
        """Remove a blob as `blobs` named it; nothing happens where there is none."""
        self._blobs.drop(name, digest)
