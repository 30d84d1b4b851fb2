"""The command `eul-train` and the one place where its errors become a line and an exit status."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import click

from eul_serve.errors import CapacityError, EulError
from eul_serve.failure import report

COMMANDS = {
    "base": "eul_trainer.cli.base",
    "data": "eul_trainer.cli.data",
    "teach": "eul_trainer.cli.teach",
    "baseline": "eul_trainer.cli.baseline",
    "fit": "eul_trainer.cli.fit",
    "sweep": "eul_trainer.cli.sweep",
    "fuse": "eul_trainer.cli.fuse",
    "revoke": "eul_trainer.cli.revoke",
    "batch": "eul_trainer.cli.batch",
    "compose": "eul_trainer.cli.compose",
    "canary": "eul_trainer.cli.canary",
    "eval": "eul_trainer.cli.evaluate",
    "sequence": "eul_trainer.cli.sequence",
    "ability": "eul_trainer.cli.ability",
    "attack": "eul_trainer.cli.attack",
    "report": "eul_trainer.cli.report",
    "certify": "eul_trainer.cli.certify",
}


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
    given = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit status; errors become one line on stderr, or JSON on stdout."""
    try:
        result = group.main(args=arguments, prog_name="eul-train", standalone_mode=False)
    except BaseException as error:
        if os.environ.get("RANK", "0") != "0" and isinstance(error, EulError) and not isinstance(error, CapacityError):
            return error.exit_status  # of several processes all have the same error, and the first one says it
        return report(error, program="eul-train", as_json="--json" in arguments)
    return result if isinstance(result, int) else 0


def emit(result: dict[str, Any]) -> None:
    """Print a result as one line of JSON on stdout."""
    click.echo(json.dumps(result, sort_keys=True))
