"""Run command lines as a user would: shown before they run, their output kept."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from eul_serve.errors import EulError

_BIN = Path(sys.executable).parent


class CommandError(EulError):
    """A command line of the demonstration failed; the message holds its last words."""


def run(*arguments: str, quiet: bool = False, timeout: float = 1200.0) -> str:
    """Show a command line, run it, and return what it printed on standard output.

    Args:
        *arguments: Program (`eul` or `eul-train`) and its arguments.
        quiet: Keep the program's progress off the screen.
        timeout: Seconds until it is killed.

    Returns:
        Its standard output, stripped.

    Raises:
        CommandError: The program ended with another status than 0, or not in time.
    """
    click.secho(f"$ {shown(arguments)}", fg="cyan")
    try:
        done = attempt(*arguments, quiet=quiet, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{shown(arguments)}: not done after {timeout:.0f} seconds") from error
    if done.returncode != 0:
        raise CommandError(f"{shown(arguments)}: exit status {done.returncode}: {(done.stderr or '').strip()[-800:]}")
    return done.stdout.strip()


def attempt(*arguments: str, quiet: bool = True, timeout: float = 1200.0) -> subprocess.CompletedProcess[str]:
    """Run a command line and return how it ended, whatever its exit status."""
    return subprocess.run(
        command(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        timeout=timeout,
    )


def command(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the program's path in this environment."""
    return [str(_BIN / arguments[0]), *arguments[1:]]


def shown(arguments: Sequence[str]) -> str:
    """Return a command line as a person would type it."""
    return shlex.join(arguments)
