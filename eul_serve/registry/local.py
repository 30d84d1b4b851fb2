"""A registry in a directory, local or shared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from eul_serve.registry.directory_store import DirectoryStore
from eul_serve.registry.events import removals
from eul_serve.registry.stored import StoredRegistry
from eul_serve.registry.tree import STAGING


class LocalRegistry(StoredRegistry):
    """A registry in a directory, which is looked for again at least once a second: a share may go at any time."""

    def __init__(self, root: Path) -> None:
        super().__init__(DirectoryStore(root), recheck_seconds=1.0)
        self._root = root

    def changes(self) -> AsyncIterator[None]:
        """Yield after something was written here, by any process of this machine."""
        # Whoever writes stages a file there, and removes it once the record is in its place: so one directory tells of
        # every alias and every order, when they can be read.
        return removals(self._root / STAGING)
