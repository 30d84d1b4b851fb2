"""How fast a run is, how long it still takes at most, and how much memory it holds."""

from __future__ import annotations

import time
from collections import deque

import psutil
import torch

WINDOW = 20
"""Steps over which the rate is taken."""


class Pace:
    """The pace of a run of at most `total` steps."""

    def __init__(self, total: int, device: torch.device | None = None) -> None:
        self._total = total
        self._device = device or torch.device("cpu")
        self._started = time.perf_counter()
        self._ends: deque[tuple[float, int]] = deque([(self._started, 0)], maxlen=WINDOW + 1)
        self._step = 0

    def tick(self, step: int, rows: int) -> None:
        """Count a step.

        Args:
            step: Steps taken, earlier calls of the run included.
            rows: Rows of this step.
        """
        self._step = step
        self._ends.append((time.perf_counter(), rows))

    @property
    def seconds(self) -> float:
        """Seconds since this call of the run began."""
        return self._ends[-1][0] - self._started

    @property
    def rows_per_second(self) -> float:
        """Rows per second over the last steps."""
        span = self._ends[-1][0] - self._ends[0][0]
        rows = sum(rows for _, rows in list(self._ends)[1:])
        return rows / span if span > 0 else 0.0

    @property
    def left(self) -> float:
        """Seconds until the last step at this pace; a run that reaches its target ends earlier."""
        steps = len(self._ends) - 1
        span = self._ends[-1][0] - self._ends[0][0]
        return (self._total - self._step) * span / steps if steps else 0.0

    @property
    def memory(self) -> int:
        """Bytes held: the most that torch allocated on an accelerator, else the process's resident memory."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return int(psutil.Process().memory_info().rss)

    def to_json(self) -> dict[str, float]:
        """Return the pace for the log."""
        return {
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self.rows_per_second, 2),
            "memory_bytes": self.memory,
        }

    def words(self) -> str:
        """Return the pace for a person."""
        return f"{self.rows_per_second:.1f} rows/s, at most {_clock(self.left)} left, {self.memory / 2**30:.1f} GiB"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
