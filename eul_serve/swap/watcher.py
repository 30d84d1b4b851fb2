"""Wakes the poll of a registry that can tell of its changes. Nothing relies on it: polls go on as ever."""

from __future__ import annotations

import asyncio
import logging
import random

from eul_serve.errors import EulError
from eul_serve.registry import Registry
from eul_serve.registry.events import Eventful

_log = logging.getLogger("eul_serve.swap")
RETRY_SECONDS = 5.0
"""Until the next try where events cannot be had."""


class Watcher:
    """Watches one registry; lives on the event loop."""

    def __init__(self, registry: Registry, wake: asyncio.Event) -> None:
        """Take the registry.

        Args:
            registry: What to watch; nothing happens where it tells of no changes.
            wake: Set after a change.
        """
        self._registry, self._wake = registry, wake
        self._complaint = ""

    async def run(self) -> None:
        """Watch for ever."""
        if not isinstance(self._registry, Eventful):
            return
        while True:
            try:
                async for _ in self._registry.changes():
                    self._complaint = ""
                    self._wake.set()
            except Exception as error:  # whatever it is, polls go on
                self._tell(str(error) if isinstance(error, EulError) else repr(error))
            await asyncio.sleep(RETRY_SECONDS * (1.0 + random.random()))  # noqa: S311  # no secret

    def _tell(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._complaint = complaint
            _log.info("no events of the registry, so it is looked at in every poll alone: %s", complaint)
