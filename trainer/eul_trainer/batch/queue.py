"""The queue: tasks handed to a pool, failed ones at its end again, until each has its last ending."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from eul_trainer.batch.task import Ending, Task


class Pool(Protocol):
    """Where tasks run."""

    jobs: int
    """How many are handed out at once."""

    def start(self, task: Task) -> None:
        """Hand out a task."""

    def wait(self) -> list[Ending]:
        """Wait a little and return the tasks that ended meanwhile, perhaps none."""

    def stop(self) -> None:
        """End what still runs and let go of everything."""


@dataclass(slots=True, kw_only=True)
class Standing:
    """How far a queue is."""

    total: int
    """Requests that are handed out in this call."""
    finished: dict[str, Ending] = field(default_factory=dict)
    """Last endings by request."""
    running: dict[str, Task] = field(default_factory=dict)
    """Tasks that are handed out, by request."""

    @property
    def failed(self) -> int:
        """Requests that failed for good."""
        return sum(ending.reason is not None for ending in self.finished.values())


Watch = Callable[[], None]
"""Called whenever something may have changed."""


def drain(tasks: Sequence[Task], pool: Pool, retries: int, standing: Standing, watch: Watch) -> dict[str, Ending]:
    """Run all tasks, and those that fail a few times more.

    Args:
        tasks: The tasks, in the order in which they begin.
        pool: Where they run; it is stopped at the end, whatever happens.
        retries: Further attempts at a task that failed and may do better.
        standing: How far the queue is, kept up to date.
        watch: Told when to look at it.

    Returns:
        The last ending by request.
    """
    waiting = deque(tasks)
    try:
        while waiting or standing.running:
            while waiting and len(standing.running) < pool.jobs:
                task = waiting.popleft()
                pool.start(task)
                standing.running[task.id] = task
            watch()
            for ending in pool.wait():
                task = standing.running.pop(ending.id)
                if ending.reason is None or ending.hopeless or task.attempt > retries:
                    standing.finished[ending.id] = ending
                else:
                    waiting.append(replace(task, attempt=task.attempt + 1))
        watch()
    finally:
        pool.stop()
    return standing.finished
