"""Places where a store can be: each gives an empty one, and opens it as often as a test has clients.

A new kind of store is one more line in `PLACES`, and in `DAMAGES` where its blobs can be damaged from outside.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from eul_serve.format import FileEntry
from eul_serve.registry.object_store import ObjectStore
from eul_serve.registry.store import Store
from tests.eul_serve.registry.stores.s3_server import fresh_url, s3_environment

Open = Callable[[], Store]
"""Opens the place as one more client."""
Place = Callable[[], AbstractContextManager[Open]]
Damage = Callable[[Store, FileEntry, bytes], None]
"""Puts bytes in the place of a blob of the name `poems`, past the store."""


@contextmanager
def memory_place() -> Iterator[Open]:
    """Give an empty place in the memory of this process."""
    url = f"memory://{secrets.token_hex(8)}"
    yield lambda: ObjectStore(url)


@contextmanager
def s3_place() -> Iterator[Open]:
    """Give an empty prefix in the bucket of a real S3 server."""
    url = fresh_url()
    with s3_environment():
        yield lambda: ObjectStore(url)


def damage_object(store: Store, entry: FileEntry, data: bytes) -> None:
    """Write an object over a blob, as any tool could."""
    from fsspec.core import url_to_fs

    path = f"{store.url}/blobs/sha256/{entry.sha256.removeprefix('sha256:')}"
    system, path = url_to_fs(path, use_listings_cache=False, skip_instance_cache=True)
    system.pipe_file(path, data)


PLACES: dict[str, Place] = {
    "memory": memory_place,
    "s3": s3_place,
}
DAMAGES: dict[str, Damage] = {
    "memory": damage_object,
    "s3": damage_object,
}
