"""One way to bring a bundle to a store and back, and how long that takes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from eul_serve.errors import EulError

QUIET_SECONDS = 0.2
"""After everything was written to the disks, before something is timed."""


class Mover(Protocol):
    """Moves one bundle to a place of its own, which is empty before."""

    def publish(self) -> None:
        """Bring the bundle there, so that it is on the disk."""
        ...

    def pull(self, target: Path) -> None:
        """Bring it back to a new directory, so that it is on the disk."""
        ...


def timed(work: Callable[[], object]) -> float:
    """Do something when nothing waits to be written any more, and return the seconds it took."""
    os.sync()
    time.sleep(QUIET_SECONDS)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def shell(lines: Sequence[str], *words: object) -> None:
    """Run lines of `sh`, which know the words as $1, $2 and so on; the first that fails ends them.

    Raises:
        EulError: A line failed; names it and what it said.
    """
    command = ["sh", "-euc", "\n".join(lines), "sh", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EulError(f"peer {lines!r} ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
