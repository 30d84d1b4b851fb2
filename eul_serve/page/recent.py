"""The last things that happened in a server."""

from __future__ import annotations

from collections import deque

from eul_serve.swap.feed import Happening

KEPT = 50
"""How many are kept."""


class Recent:
    """Listens to the feed."""

    def __init__(self) -> None:
        self._kept: deque[Happening] = deque(maxlen=KEPT)

    def __call__(self, happening: Happening) -> None:
        """Take what happened."""
        self._kept.append(happening)

    def newest(self) -> list[Happening]:
        """Return the last ones, the newest first."""
        return list(reversed(self._kept))
