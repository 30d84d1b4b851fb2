"""How a benchmark's script ends: bad input gets one line, as the command lines give it."""

from __future__ import annotations

from collections.abc import Callable

import click

from eul_serve.errors import EulError


def guarded(main: Callable[[], int]) -> int:
    """Run a script and return its exit status; an error of ours is said in one line."""
    try:
        return main()
    except EulError as error:
        click.echo(f"error: {error}", err=True)
        return 2
