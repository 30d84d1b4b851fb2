"""Text for people and programs: sizes, tables and JSON documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from eul_serve.plain import plain

if TYPE_CHECKING:
    from rich.console import Console

MIN_WIDTH = 160
"""Columns of a table that goes to a file or a pipe, so that no digest is broken."""


def size(count: int) -> str:
    """Return a number of bytes as people write it."""
    value, units = float(count), ["bytes", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{count} bytes" if units[0] == "bytes" else f"{value:.1f} {units[0]}"


def echo_json(data: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(data, indent=2, sort_keys=True))


def echo_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; cells are never cut, so that they can be copied."""
    # Imported here, as it takes longer than all that a command without a table does.
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    wide_console().print(table)


def wide_console() -> Console:
    """Return a console on the standard output, wide enough for digests where that is no terminal."""
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else MIN_WIDTH, highlight=False)
