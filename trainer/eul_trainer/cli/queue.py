"""Progress over a queue of requests: counts, running steps and time left; and how to go on where it is interrupted."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from eul_trainer.cli.progress import Advance, progress

if TYPE_CHECKING:
    from eul_trainer.batch.queue import Standing, Watch
    from eul_trainer.batch.run import Progress


@contextmanager
def queue_progress(total: int, quiet: bool) -> Iterator[Progress]:
    """Show a queue on stderr while the context lasts.

    Args:
        total: Requests in all.
        quiet: Show nothing.

    Yields:
        Who is told how far the batch is.
    """
    from eul_trainer.batch.run import Progress

    seen: list[Standing] = []

    with progress("batch", total, quiet) as advance:

        def begin(standing: Standing, done: int) -> Watch:
            seen.append(standing)
            return _Teller(standing, done, advance)

        try:
            yield Progress(begin=begin, say=lambda text: None if quiet else click.echo(text, err=True))
        except BaseException as error:
            if seen and not quiet and (isinstance(error, KeyboardInterrupt) or getattr(error, "exit_status", 0) > 127):
                click.echo(
                    f"stopped with {len(seen[0].finished)} of {seen[0].total} done; the same line goes on", err=True
                )
            raise


class _Teller:
    """Says how far the queue is: at every ending, and now and then in between."""

    def __init__(self, standing: Standing, done: int, advance: Advance) -> None:
        self._standing, self._done, self._advance = standing, done, advance
        self._started = self._told = time.perf_counter()
        self._ended = -1
        self._pause = 1.0 if sys.stderr.isatty() else 30.0

    def __call__(self) -> None:
        now, ended = time.perf_counter(), len(self._standing.finished)
        if ended == self._ended and now - self._told < self._pause:
            return
        self._told, self._ended = now, ended
        self._advance(self._done + ended, _words(self._standing, now - self._started))


def _words(standing: Standing, seconds: float) -> str:
    from eul_trainer.batch.journal import last_step

    ended, total = len(standing.finished), standing.total
    words = [f"{standing.failed} failed"] if standing.failed else []
    words += [f"{task.id} step {last_step(task.log)}" for task in list(standing.running.values())[:3]]
    if ended and ended < total:
        words.append(f"about {seconds / ended * (total - ended) / 60:.1f} min left")
    return ", ".join(words)
