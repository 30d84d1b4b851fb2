"""How many revisions are in each stage, for the metrics."""

from __future__ import annotations

from collections import Counter

from eul_serve.metrics import Metrics
from eul_serve.swap.entry import Entry
from eul_serve.swap.revision import Stage


class StageCount:
    """Counts by the difference alone: each of thousands of revisions has six stages on its way in."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._counts: Counter[Stage] = Counter()
        self._counted: dict[Entry, Stage] = {}
        for stage in Stage:
            metrics.revisions.labels(stage=stage.value).set(0)

    def count(self, entry: Entry, *, known: bool) -> None:
        """Count an entry by its stage now.

        Args:
            entry: The entry, counted before or not.
            known: Whether the server still knows it.
        """
        before, now = self._counted.pop(entry, None), entry.state.stage
        if before is not None:
            self._counts[before] -= 1
        if known:
            self._counted[entry] = now
            self._counts[now] += 1
        for stage in (before or now, now):
            self._metrics.revisions.labels(stage=stage.value).set(self._counts[stage])
