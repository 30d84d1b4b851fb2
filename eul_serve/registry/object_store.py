"""A store in a bucket: S3 and what speaks like it, Google Cloud Storage, Azure, or the memory of one process.

Records and blobs have their own paths as names of objects, so other tools can copy a registry as it is. One more
object, `.conditional`, shows that the store refuses to overwrite; `.clock`, outside of S3, what time it is there.

Rights that a publisher needs on S3: GetObject, PutObject, ListBucket, and to go on with what a killed one had sent,
ListBucketMultipartUploads and ListMultipartUploadParts; DeleteObject for whoever collects. A server needs GetObject and
ListBucket. Parts of uploads that nobody went on with cost money and are in no listing: give the bucket a lifecycle rule
with AbortIncompleteMultipartUpload after a week.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from eul_serve.errors import BundleFormatError, BusyError, NotFoundError
from eul_serve.format import FileEntry
from eul_serve.registry.object_url import open_objects
from eul_serve.registry.objects import OWN, Stat
from eul_serve.registry.store import MAX_RECORD, Key, Opened

RANGE = 8 << 20
"""Bytes of one request for a part of a blob."""
AHEAD = 4
"""How many of them run at once. With the one that is handed out and what the library holds: 55 MiB, measured."""
TRIES = 5
"""How often a record is tried whose place was taken and then empty again."""
_BLOBS = "blobs"
_HEX = re.compile(r"[0-9a-f]{64}")


class ObjectStore:
    """A `Store` on any file system of fsspec that can refuse to overwrite.

    The libraries underneath repeat what failed for a moment, as often as their own settings say (for S3,
    AWS_MAX_ATTEMPTS and AWS_RETRY_MODE). No listing is kept from one call to the next.
    """

    def __init__(self, url: str) -> None:
        """Open a store; nothing is asked of it yet.

        Args:
            url: `s3://BUCKET/PREFIX`, `gs://`, `abfs://` or `memory://`. Credentials come from the environment.

        Raises:
            InputError: The URL is not of that form, holds credentials, or its package is missing.
        """
        self._objects = open_objects(url)
        self._url = url.rstrip("/")

    @property
    def url(self) -> str:
        """Where it is, for messages; `open_objects` refused credentials in it."""
        return self._url

    def read(self, key: Key) -> bytes | None:
        """Return a record, None where there is none."""
        try:
            data = self._objects.read("/".join(key), 0, MAX_RECORD + 1)
        except FileNotFoundError:
            self._objects.require()
            return None
        self._check_size(key, data)
        return data

    def create(self, key: Key, data: bytes) -> bool:
        """Make a record whole, unless there is one."""
        self._check_size(key, data)
        for _ in range(TRIES):
            try:
                self._objects.create("/".join(key), data)
                return True
            except FileExistsError:
                found = self.read(key)
            except BusyError:
                # The answer may have been lost and not the request.
                found = self.read(key)
                if found is None:
                    raise
            if found is not None:
                return found == data
        raise BusyError(f"{self.url}: record {'/'.join(key)!r} comes and goes; run again")

    def remove(self, key: Key) -> None:
        """Remove a record; nothing happens where there is none."""
        self._objects.remove("/".join(key))

    def list(self, *prefix: str) -> list[str]:
        """Return the names directly below a path, of records and of what has records below it, sorted."""
        names = sorted(name for name in self._objects.children("/".join(prefix)) if not name.startswith(OWN))
        return names if prefix else [name for name in names if name != _BLOBS]

    def age(self, key: Key) -> float | None:
        """Return how many seconds ago a record was made; None where there is none."""
        found = self._stat("/".join(key))
        return None if found is None else found.age

    def holds(self, name: str, entry: FileEntry) -> bool:
        """Return whether a blob has its size, and on S3 our word that its bytes were verified."""
        found = self._stat(_path(entry.sha256))
        return found is not None and found.size == entry.size and found.digest in (None, _hex(entry.sha256))

    def put(self, name: str, entry: FileEntry, source: Opened) -> None:
        """Store a blob whole; on S3 after a killed publisher, only what it had not sent yet."""
        self._objects.upload(_path(entry.sha256), entry, source)

    def chunks(self, name: str, entry: FileEntry) -> Iterator[bytes]:
        """Yield a blob's bytes as they are stored, some ranges ahead of the reader."""
        path = _path(entry.sha256)
        found = self._stat(path)
        if found is None:
            raise self._missing(name, entry)
        try:
            yield from self._ahead(path, found.size)
        except FileNotFoundError:
            raise self._missing(name, entry) from None

    def blobs(self, names: Iterable[str]) -> Iterator[tuple[str, str, float]]:
        """Yield each blob with its age in seconds; blobs of all names are together."""
        for name, age in self._objects.below(f"{_BLOBS}/sha256"):
            if _HEX.fullmatch(name):
                yield "", f"sha256:{name}", age

    def drop(self, name: str, digest: str) -> None:
        """Remove a blob; nothing happens where there is none."""
        self._objects.remove(_path(digest))

    def _ahead(self, path: str, size: int) -> Iterator[bytes]:
        """Yield an object in order, with the next ranges on their way."""
        waiting: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="eul-blob") as pool:
            try:
                for start in range(0, size, RANGE):
                    if len(waiting) == AHEAD:
                        yield waiting.popleft().result()
                    waiting.append(pool.submit(self._objects.read, path, start, min(start + RANGE, size)))
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _stat(self, path: str) -> Stat | None:
        with suppress(FileNotFoundError):
            return self._objects.stat(path)
        self._objects.require()
        return None

    def _check_size(self, key: Key, data: bytes) -> None:
        if len(data) > MAX_RECORD:
            raise BundleFormatError(f"{self.url}: record {'/'.join(key)!r}: expected at most {MAX_RECORD} bytes")

    def _missing(self, name: str, entry: FileEntry) -> NotFoundError:
        return NotFoundError(f"{self.url}: {name}: blob {entry.sha256} is missing; publish the bundle again")


def _path(digest: str) -> str:
    return f"{_BLOBS}/sha256/{_hex(digest)}"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
