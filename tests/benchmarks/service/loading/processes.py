"""Processes of a benchmark: started, watched, and gone at its end, whatever that end is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from eul_serve.errors import EngineError

SERVICE = Path(__file__).resolve().parents[1]
PATHS = (SERVICE, SERVICE.parent / "trainer", SERVICE.parents[2])
"""Where a program of ours finds `loading`, `common` and `tests`."""
END_SECONDS = 40.0
"""What a server has to end by itself before it is killed."""


def end_at_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does, through everything that cleans up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def program(name: str, *words: object) -> list[str]:
    """Return the line that runs a module of `loading`."""
    return [sys.executable, "-m", f"loading.{name}", *map(str, words)]


def variables(**more: str) -> dict[str, str]:
    """Return the environment of a program of ours: this process's, with what it needs to find ours."""
    found = {**os.environ, **more}
    paths = [str(path) for path in PATHS]
    if known := found.get("PYTHONPATH"):
        paths.append(known)
    return {**found, "PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def started(
    command: Sequence[str], log: Path, is_ready: Callable[[], bool], seconds: float = 400.0, **more: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the context ends.

    Args:
        command: How to start it.
        log: File for what it writes.
        is_ready: Whether it can be asked.
        seconds: What it has to become ready.
        **more: Environment variables.

    Yields:
        Its process.

    Raises:
        EngineError: It does not become ready.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=variables(**more),
            start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + seconds
        while not is_ready():
            if process.poll() is not None or time.monotonic() > end:
                raise EngineError(f"a server did not become ready: {log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and everything that it started."""
    try:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def memory_mib(pid: int) -> float:
    """Return the memory of a process and its descendants in MiB; what they share is counted once (PSS)."""
    total = 0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):  # a child that ended meanwhile
            total += process.memory_full_info().pss
    return total / 2**20


def processor_seconds(pid: int) -> float:
    """Return the processor's seconds that one process has taken, without its descendants."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def bind(pid: int, cores: Sequence[int]) -> None:
    """Let a process that runs, with all its threads, use these cores alone."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # a thread that ended meanwhile
            os.sched_setaffinity(int(task.name), cores)
