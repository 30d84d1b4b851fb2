"""The product's commands as a benchmark's steps: each run once, with its seconds kept, so that a killed run goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from common.ledger import Ledger
from eul_serve.errors import EulError


class Steps:
    """Runs `eul-train` lines in processes of their own, as a person would."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def run(self, name: str, words: Sequence[object]) -> dict[str, Any]:
        """Run a line, unless it was run before.

        Args:
            name: Name of the step.
            words: The line's words after `eul-train`, without `--json`.

        Returns:
            `told` (what the line printed) and `seconds` (wall clock, start of Python and load of the model included).

        Raises:
            EulError: The line failed.
        """
        key = (name,)
        if key in self.ledger:
            return self.ledger[key]
        click.echo(f"{name}: eul-train {' '.join(map(str, words[:2]))} ...", err=True)
        started = time.perf_counter()
        line = [sys.executable, "-m", "eul_trainer", *map(str, words), "--json"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EulError(f"step {name!r} ended with status {done.returncode}: {done.stdout.strip()}{done.stderr}")
        seconds = time.perf_counter() - started
        click.echo(f"{name}: {seconds:.0f} s", err=True)
        return self.ledger.add(key, {"told": json.loads(done.stdout.splitlines()[-1]), "seconds": seconds})

    def seconds(self) -> dict[str, float]:
        """Return the seconds of every step by name."""
        return {str(key[0]): value["seconds"] for key, value in self.ledger.found.items()}
