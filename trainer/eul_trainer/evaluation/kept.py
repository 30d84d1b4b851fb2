"""Views of one system's rows on disk: whole ones, and those of rows whose losses alone were asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from eul_trainer.evaluation.cache import Cache
from eul_trainer.evaluation.view import View


class Kept:
    """Views by row.

    Args:
        cache: Where they are kept.
        system: What tells the system from all others.
        needed: Rows that need a whole view; losses do not stand in for it, though it does for losses.
        alone: Whether answers are read without their questions.
    """

    def __init__(self, cache: Cache, system: str, needed: Collection[str], alone: bool) -> None:
        settings = {"alone": True} if alone else {}
        self._whole = cache.of(system, "score", **settings)
        self._losses = cache.of(system, "losses", **settings)
        self._needed = needed

    def __contains__(self, row: str) -> bool:
        return row in self._whole or (row in self._losses and row not in self._needed)

    def __getitem__(self, row: str) -> View:
        return View.from_json(self._whole[row] if row in self._whole else self._losses[row])

    def add(self, views: Mapping[str, View]) -> None:
        """Write the views of a batch down, by the rows' digests."""
        whole = {row: view.to_json() for row, view in views.items() if row in self._needed}
        losses = {row: view.to_json() for row, view in views.items() if row not in self._needed}
        for kept, found in ((self._whole, whole), (self._losses, losses)):
            if found:
                kept.add(found)
