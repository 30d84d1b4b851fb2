"""What a place must be able to do to hold a registry: records that are made once, and blobs by digest.

A *record* is a small file that never changes: a manifest, one move of an alias, one line of the log. Everything that
happens in a registry is the making of a record, and `create` is the one operation that must be atomic: of two clients
that make the same record at the same time, one is told that it was too late, looks at what is there, and decides anew.
A *blob* is a file of a bundle, named by its digest; nobody sees it before a manifest names it.

    registry.json                              {"layout":2}
    blobs/sha256/<hex>                         files of bundles
    names/<name>/revisions/<hex>.json          canonical manifests
    names/<name>/aliases/<alias>/<n>.json      moves of an alias, numbered from 1
    names/<name>/signatures/<hex>/<hex>.json   signatures of a revision, by their own digest
    orders/<n>.json                            holds, bans and deletions
    log/<n>.json                               every act, in order
    claims/<id>.json                           what publishers are about to name, so that nothing collects it

A store may keep them under other names, as long as it finds them again under these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from eul_serve.format import FileEntry

Key = tuple[str, ...]
"""Path of a record: plain names, such as `("names", "poems", "revisions", "<hex>.json")`."""
Opened = Callable[[], Iterator[bytes]]
"""Opens a source at its start; called again where an upload is tried again."""

MARK: Key = ("registry.json",)
LAYOUT = b'{"layout":2}'
MAX_RECORD = 16 << 20
"""Most bytes of a record."""


class Store(Protocol):
    """A place for records and blobs; safe for many clients and threads at once.

    Every method raises InputError where the store refuses (rights, a link in the way), CapacityError where it is full,
    and NotFoundError where the place itself (directory, bucket, host) is not there. What was written is durable when
    a method returns, and is then seen by every client.
    """

    @property
    def url(self) -> str:
        """Where it is, for messages; without credentials."""
        ...

    def read(self, key: Key) -> bytes | None:
        """Return a record, None where there is none; raises BundleFormatError for more than `MAX_RECORD` bytes."""
        ...

    def create(self, key: Key, data: bytes) -> bool:
        """Make a record whole, unless there is one.

        Args:
            key: Its path.
            data: Its bytes.

        Returns:
            True where it is there with these bytes now, and False where another one is there. A client that was cut
            off from the answer of its own attempt finds its bytes there, and is told True.
        """
        ...

    def remove(self, key: Key) -> None:
        """Remove a record; nothing happens where there is none."""
        ...

    def list(self, *prefix: str) -> list[str]:
        """Return the names directly below a path, of records and of what has records below it, sorted."""
        ...

    def age(self, key: Key) -> float | None:
        """Return how many seconds ago a record was made, by the store's own clock; None where there is none."""
        ...

    def holds(self, name: str, entry: FileEntry) -> bool:
        """Return whether a blob is there, with the right size, and where the store can tell cheaply, whole.

        Args:
            name: The bundle's name; a store may keep each name's blobs apart.
            entry: The blob.

        Returns:
            False where `put` has something to do.
        """
        ...

    def put(self, name: str, entry: FileEntry, source: Opened) -> None:
        """Store a blob whole, in the place of a damaged one where there is one.

        Args:
            name: The bundle's name.
            entry: The blob.
            source: Opens its bytes; what they raise is raised on, and then nothing is stored.

        Raises:
            BundleFormatError: The bytes are not those of the entry.
        """
        ...

    def chunks(self, name: str, entry: FileEntry) -> Iterator[bytes]:
        """Yield a blob's bytes as they are stored; the caller checks them. NotFoundError where it is missing."""
        ...

    def blobs(self, names: Iterable[str]) -> Iterator[tuple[str, str, float]]:
        """Yield each blob of these names as (name, digest `sha256:<hex>`, age in seconds).

        A store that keeps the blobs of all names together yields each once, under the name "".
        """
        ...

    def drop(self, name: str, digest: str) -> None:
        """Remove a blob as `blobs` named it; nothing happens where there is none."""
        ...
