"""A click group whose commands are imported when they are called, and whose errors all end in one place."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import click

from eul_serve.failure import report

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is not imported yet."""

    module: str
    """Module that holds it as `command`."""
    summary: str
    """One line for the list of commands."""
    section: str
    """Heading that it stands under."""


class LazyGroup(click.Group):
    """A group over a table of entries; a subclass names the table."""

    entries: Mapping[str, Entry]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if (entry := self.entries.get(cmd_name)) is None:
            return None
        command = importlib.import_module(entry.module).command
        assert isinstance(command, click.Command), f"{entry.module}.command is no click command"
        command.name = cmd_name
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands at the Tab key, importing none; their options are offered by the command itself."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=entry.summary)
            for name, entry in self.entries.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section, importing none."""
        for section in dict.fromkeys(entry.section for entry in self.entries.values()):
            rows = [(name, entry.summary) for name, entry in self.entries.items() if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: object, **__: object
    ) -> NoReturn:
        """Run a command line and leave with its exit status; the one place where errors end."""
        words = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            status = super().main(words, prog_name, standalone_mode=False)
        except BaseException as error:
            sys.exit(report(error, program="eul", as_json="--json" in words))
        sys.exit(status if isinstance(status, int) else 0)


def examples(*lines: str) -> str:
    """Return the end of a help page, which shows a command by use."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
