"""Seconds of the two phases of an evaluation, by the clock and of the processor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SCORING, ANSWERING = "scoring", "answering"
PHASES = (SCORING, ANSWERING)
"""Losses of given answers, the judging of greedy ones included; and finding the greedy ones."""
Instant = tuple[float, float]


def now() -> Instant:
    """Return seconds by the clock, and of the processor, all threads together."""
    return time.perf_counter(), time.process_time()


class Clock:
    """Adds up the seconds of phases."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        """By the clock."""
        self.processor = dict.fromkeys(PHASES, 0.0)
        """Of the processor: what other work on the machine hardly changes."""

    def add(self, phase: str, start: Instant, end: Instant) -> None:
        """Count the time between two instants to a phase."""
        self.seconds[phase] += end[0] - start[0]
        self.processor[phase] += end[1] - start[1]

    @contextmanager
    def of(self, phase: str) -> Iterator[None]:
        """Count the time of the context to a phase."""
        start = now()
        yield
        self.add(phase, start, now())
