"""Our registry on any store, opened anew for everything, as every command line does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from eul_serve.errors import InputError
from eul_serve.format import Bundle, FileEntry
from eul_serve.registry.open import open_registry
from eul_serve.registry.store import Opened, Store
from eul_serve.registry.stored import StoredRegistry

NAME, ALIAS = "moved", "stable"


class Counted:
    """A store that counts the blobs that are brought to it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sent = 0
        """Bytes of them."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, name: str, entry: FileEntry, source: Opened) -> None:
        """Count a blob and store it."""
        self.sent += entry.size
        self._store.put(name, entry, source)


class Ours:
    """Publishes and fetches by our registry."""

    def __init__(self, bundle: Bundle, url: str) -> None:
        self._bundle, self._url = bundle, url
        self.sent = 0
        """Bytes of the blobs that the last publication brought to the store."""

    def publish(self) -> None:
        """Publish the bundle and move an alias to it."""
        registry = open_registry(self._url)
        if not isinstance(registry, StoredRegistry):
            raise InputError(f"registry {self._url!r}: expected one on a store, found {type(registry).__name__}")
        counted = Counted(registry.store)
        registry.store = cast("Store", counted)
        registry.publish(self._bundle, NAME, ALIAS)
        self.sent = counted.sent

    def pull(self, target: Path) -> None:
        """Fetch its verified files."""
        open_registry(self._url).fetch(NAME, self._bundle.revision, target)
