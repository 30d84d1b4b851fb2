"""A bar for a copy that may take long, with its rate and the time that is left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from eul_serve.format import Manifest
from eul_serve.registry.base import OnBytes


def total(manifest: Manifest, *, with_statistics: bool) -> int:
    """Return how many bytes of a bundle are copied."""
    entries = [*manifest.files.values(), *(manifest.artifacts.values() if with_statistics else ())]
    return sum(entry.size for entry in entries)


@contextmanager
def progress(what: str, size: int, *, shown: bool) -> Iterator[OnBytes | None]:
    """Show how far a copy is, on a terminal alone.

    Args:
        what: What is done, such as `publishing`.
        size: How many bytes there are to copy.
        shown: Whether to show anything.

    Yields:
        Who is to be told of every piece; None where nothing is shown.
    """
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=size)
        yield lambda count: bar.advance(task, count)
