"""Progress on stderr: a bar with losses and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from eul_trainer.upkeep.pace import Pace

Advance = Callable[[int, str], None]
"""Called with the number of things done and a few words about them."""

LINES = 10
"""Lines that a whole run prints where stderr is no terminal."""


@contextmanager
def progress(what: str, total: int, quiet: bool) -> Iterator[Advance]:
    """Show progress while the context lasts.

    Args:
        what: What is being done.
        total: Number of things to do, at most.
        quiet: Show nothing.

    Yields:
        The function to call after each thing.
    """
    if quiet:
        yield lambda done, words: None
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[words]}"), console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total, words="")
            yield lambda done, words: bar.update(task, completed=done, words=words)
    else:
        yield _Lines(what, total)


class _Lines:
    """A line each time another part of the whole is done."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._every = max(1, total // LINES)
        self._told = 0

    def __call__(self, done: int, words: str) -> None:
        if done // self._every > self._told:
            self._told = done // self._every
            click.echo(f"{self._what} {done}/{self._total} {words}", err=True)


class Words:
    """A recorder that puts a step's losses and pace into words for a person."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance

    def begin(self, run: str, curve: Sequence[dict[str, float]]) -> None:
        """Nothing is told before the first step."""

    def step(self, number: int, losses: dict[str, float], pace: Pace) -> None:
        """Tell of a step."""
        known = (name for name in ("loss", "forget", "retain", "probe") if name in losses)
        self._advance(number, f"{' '.join(f'{name} {losses[name]:.2f}' for name in known)}, {pace.words()}")
