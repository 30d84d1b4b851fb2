"""How every error of the command line ends: one clear line, and an exit status."""

from __future__ import annotations

import json
import os
import traceback

import click

from eul_serve.cli.text import plain
from eul_serve.errors import EulError

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130
BUG_STATUS = 1


def report(error: BaseException, *, as_json: bool) -> int:
    """Tell a person or a program what went wrong.

    Args:
        error: What was raised.
        as_json: Whether to print `{"error": ...}` to stdout, instead of a line to stderr.

    Returns:
        The exit status.
    """
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else BUG_STATUS
    status, message = _describe(error)
    if os.environ.get("EUL_DEBUG") == "1":
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if as_json:
        body = {"exit_status": status, "kind": type(error).__name__, "message": message}
        click.echo(json.dumps({"error": body}, sort_keys=True))
    else:
        click.echo(f"eul: {plain(message)}", err=True)
    return status


def _describe(error: BaseException) -> tuple[int, str]:
    if isinstance(error, EulError):
        return error.exit_status, str(error)
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return INTERRUPTED_STATUS, "interrupted"
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"; see `{context.command_path} --help`" if context else ""
        return USAGE_STATUS, f"{error.format_message().rstrip('.')}{hint}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("eul_serve"):
        return USAGE_STATUS, f"this command needs the package {error.name!r}; pip install 'eul-serve[server]'"
    return BUG_STATUS, f"unexpected {type(error).__name__}: {error}; this is a bug, EUL_DEBUG=1 shows where"
