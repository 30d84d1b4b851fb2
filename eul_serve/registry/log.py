"""The log of a registry: one JSON line for each act, only ever appended to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from eul_serve.append import append_line
from eul_serve.registry.tree import Tree

_FILE = "log.jsonl"


class ActLog:
    """The append-only log of one registry."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def append(self, act: Mapping[str, Any]) -> None:
        """Append one act, whole or not at all."""
        line = json.dumps(act, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        with self._tree.locked("locks", "log"), self._tree.directory() as root:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(_FILE, flags, 0o666, dir_fd=root)
            try:
                append_line(descriptor, line)
            finally:
                os.close(descriptor)
