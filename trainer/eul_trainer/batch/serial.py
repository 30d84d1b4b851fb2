"""A pool without a cluster: one request after another in this process."""

from __future__ import annotations

from eul_trainer.batch.queue import Watch
from eul_trainer.batch.task import Ending, Task
from eul_trainer.batch.work import work
from eul_trainer.upkeep.interrupt import Interrupt


class SerialPool:
    """Runs each task to its end when it is waited for."""

    jobs = 1

    def __init__(self, watch: Watch, interrupt: Interrupt | None = None) -> None:
        """Make a pool.

        Args:
            watch: Called after every step of a task.
            interrupt: Where a task learns of a signal, and ends after its step.
        """
        self._watch, self._interrupt = watch, interrupt
        self._task: Task | None = None

    def start(self, task: Task) -> None:
        """Hand out a task."""
        self._task = task

    def wait(self) -> list[Ending]:
        """Run the task and return how it ended."""
        task, self._task = self._task, None
        # The text goes there and back as on a cluster, so that both are the same way.
        return [] if task is None else [work(Task.from_json(task.to_json()), self._watch, self._interrupt)]

    def stop(self) -> None:
        """Nothing is held."""
