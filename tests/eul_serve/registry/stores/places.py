"""Places where a store can be: each gives an empty one, and opens it as often as a test has clients.

A new kind of store is one more line in `PLACES`, and in `DAMAGES` where it can repair a blob that was damaged from
outside. An OCI registry cannot: it keeps the blob that it has, whatever is put (`test_stores_oci.py` has what is said).
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from eul_serve.format import FileEntry
from eul_serve.registry.directory_store import DirectoryStore
from eul_serve.registry.object_store import ObjectStore
from eul_serve.registry.store import Store
from tests.eul_serve.registry.stores.oci_place import oci_place
from tests.eul_serve.registry.stores.s3_server import fresh_url, s3_environment

Open = Callable[[], Store]
"""Opens the place as one more client."""
Place = Callable[[], AbstractContextManager[Open]]
Damage = Callable[[Store, FileEntry, bytes], None]
"""Puts bytes in the place of a blob of the name `poems`, past the store."""


@contextmanager
def directory_place() -> Iterator[Open]:
    """Give an empty directory."""
    with tempfile.TemporaryDirectory() as root:
        yield lambda: DirectoryStore(Path(root))


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


def damage_file(store: Store, entry: FileEntry, data: bytes) -> None:
    """Write a file over a blob, as any editor could."""
    root = Path(store.url.removeprefix("registry ").strip("'"))
    (root / "blobs" / "sha256" / entry.sha256.removeprefix("sha256:")).write_bytes(data)


PLACES: dict[str, Place] = {
    "directory": directory_place,
    "memory": memory_place,
    "s3": s3_place,
    "oci": oci_place,
}
DAMAGES: dict[str, Damage] = {
    "directory": damage_file,
    "memory": damage_object,
    "s3": damage_object,
}
