"""A server that tells how many tasks its event loop has, when it is asked by a signal: no metric says that."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

from eul_serve.errors import EngineError
from eul_serve.serve.run import write_whole

TASKS = "EUL_BENCH_TASKS"
"""Environment variable with the file that the number of tasks is written to."""


def count_at_signal() -> None:
    """Write the tasks of this process's event loop, by what they run, to the file at every SIGUSR1."""

    def tell(*_: object) -> None:
        # Python runs this between two steps of the loop, in its thread.
        tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
        write_whole(Path(os.environ[TASKS]), json.dumps(tasks))

    signal.signal(signal.SIGUSR1, tell)


def count_tasks(pid: int, tasks: Path) -> dict[str, int]:
    """Return the tasks of a server that counts them.

    Args:
        pid: Its process.
        tasks: The file that it writes.

    Returns:
        How many, by what they run.

    Raises:
        EngineError: It does not answer.
    """
    tasks.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    end = time.monotonic() + 30
    while not tasks.exists():
        if time.monotonic() > end:
            raise EngineError("the server did not tell how many tasks it has within 30 seconds")
        time.sleep(0.02)
    found: dict[str, int] = json.loads(tasks.read_text())
    return found
