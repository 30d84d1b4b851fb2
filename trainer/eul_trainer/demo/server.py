"""The server of the demonstration: `eul serve` as a process of its own, stopped whatever happens."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from eul_trainer.demo.shell import CommandError, command, shown

_START_SECONDS = 240.0
_STOP_SECONDS = 60.0


@contextmanager
def serving(arguments: Sequence[str], ready: Path, log: Path) -> Iterator[dict[str, str]]:
    """Start `eul serve`, wait until it is ready, and stop it at the end.

    Args:
        arguments: The command line, without `--ready-file`.
        ready: File that the server writes once it can serve.
        log: File for all that it prints.

    Yields:
        What the server wrote when ready: the addresses it listens on.

    Raises:
        CommandError: It ended or was not ready in time; the message holds the end of its log.
    """
    ready.unlink(missing_ok=True)
    click.secho(f"$ {shown(arguments)} &", fg="cyan")
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command([*arguments, "--ready-file", str(ready)]), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield _wait(process, ready, log)
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], ready: Path, log: Path) -> dict[str, str]:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if ready.is_file():
            found: dict[str, str] = json.loads(ready.read_text())
            return found
        if process.poll() is not None:
            break
        time.sleep(0.2)
    end = log.read_text(errors="replace")[-2000:]
    raise CommandError(f"eul serve was not ready within {_START_SECONDS:.0f} seconds; its log ends:\n{end}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
