"""A registry in a directory, local or shared."""

from __future__ import annotations

from pathlib import Path

from eul_serve.registry.directory_store import DirectoryStore
from eul_serve.registry.stored import StoredRegistry


class LocalRegistry(StoredRegistry):
    """A registry in a directory, which is looked for at every call: a share may go at any time."""

    def __init__(self, root: Path) -> None:
        super().__init__(DirectoryStore(root), recheck_seconds=0.0)
