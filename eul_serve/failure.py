"""How every error of the two command lines ends: one clear line or one JSON document, and an exit status."""

from __future__ import annotations

import json
import os
import re
import traceback
from dataclasses import asdict, dataclass

import click

from eul_serve.errors import EulError
from eul_serve.packages import describe_import
from eul_serve.plain import plain

INPUT_STATUS = 2
INTERRUPTED_STATUS = 130
BUG_STATUS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a person or a program is told of an error."""

    kind: str
    """Name of the error's class."""
    message: str
    """One line: what is wrong, what is allowed, what to do."""
    exit_status: int
    """Exit status of the command, 1 to 7 or 130."""

    def to_json(self) -> str:
        """Return the document that `--json` prints: `{"error": {"exit_status", "kind", "message"}}`."""
        return json.dumps({"error": asdict(self)}, sort_keys=True)


def report(error: BaseException, *, program: str, as_json: bool) -> int:
    """Tell a person or a program what went wrong.

    Args:
        error: What was raised.
        program: The command line's name, `eul` or `eul-train`.
        as_json: Whether to print `{"error": ...}` to stdout, instead of a line to stderr.

    Returns:
        The exit status.
    """
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else BUG_STATUS
    failure = describe(error, program)
    if os.environ.get("EUL_DEBUG") == "1":
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if as_json:
        click.echo(failure.to_json())
    else:
        click.echo(f"{program}: {plain(failure.message)}", err=True)
    return failure.exit_status


def describe(error: BaseException, program: str) -> Failure:
    """Say what an error means.

    Args:
        error: What was raised.
        program: The command line's name; decides which extra a missing package is in.

    Returns:
        What to tell of it.
    """
    status, text = _describe(error, program)
    message = re.sub(r"\s*\n\s*", " ", text.strip())
    return Failure(kind=type(error).__name__, message=message, exit_status=status)


def _describe(error: BaseException, program: str) -> tuple[int, str]:
    if isinstance(error, EulError):
        return error.exit_status, str(error)
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return INTERRUPTED_STATUS, "interrupted"
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"; see `{context.command_path} --help`" if context else ""
        return INPUT_STATUS, f"{error.format_message().rstrip('.')}{hint}"
    if isinstance(error, ImportError) and (text := describe_import(error, program)) is not None:
        return INPUT_STATUS, text
    return BUG_STATUS, f"unexpected {type(error).__name__}: {error}; this is a bug, EUL_DEBUG=1 shows where"
