"""The command `eul-train` and the one place where its errors become a line and an exit status."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import click

from eul_serve.errors import EulError

COMMANDS = {
    "base": "eul_trainer.cli.base",
    "fit": "eul_trainer.cli.fit",
    "fuse": "eul_trainer.cli.fuse",
    "revoke": "eul_trainer.cli.revoke",
    "eval": "eul_trainer.cli.evaluate",
}
INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that imports a command's file when the command is named, so that `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None where there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="eul-serve")
def group() -> None:
    """Make a language model forget: train, fuse and measure unlearning layers.

    \b
    A first run, from nothing to a fused bundle:
      eul-train base --out base
      eul-train fit --model base --forget alice.jsonl --retain keep.jsonl --out layers/alice
      eul-train fit --model base --forget bob.jsonl --retain keep.jsonl --out layers/bob
      eul-train fuse layers/alice layers/bob --model base --retain keep.jsonl --out fused
      eul-train eval --model base --bundle fused --forget alice.jsonl --retain keep.jsonl --out report

    Data files hold one JSON object per line, with a prompt and a completion.
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are


def main(arguments: list[str] | None = None) -> None:
    """Run `eul-train` and exit with its status."""
    # OpenMP's threads spin while they wait, which on a shared machine makes training several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit status; errors become one line on stderr."""
    try:
        result = group.main(args=arguments, prog_name="eul-train", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code, arguments)
    except click.Abort:
        return _fail("interrupted", INTERRUPTED, arguments)
    except EulError as error:
        return _fail(str(error), error.exit_status, arguments, error)
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error} (this is a bug; please report it)", 1, arguments, error)


def _fail(message: str, status: int, arguments: list[str], error: Exception | None = None) -> int:
    if error is not None and os.environ.get("EUL_DEBUG") == "1":
        raise error
    line = " ".join(message.split())
    if "--json" in arguments:
        emit({"error": line})
    click.echo(f"eul-train: {line}", err=True)
    return status


def emit(result: dict[str, Any]) -> None:
    """Print a result as one line of JSON on stdout."""
    click.echo(json.dumps(result, sort_keys=True))
