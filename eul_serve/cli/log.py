"""`eul log`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from eul_serve.audit.chain import Entry
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option, registry_option
from eul_serve.cli.text import echo_json, echo_table
from eul_serve.registry.check import check_chains
from eul_serve.registry.stored import StoredRegistry

MAX_ENTRIES = 1_000_000


@click.command(epilog=examples("eul log", "eul log -n 100 --json", "eul log --check"))
@registry_option
@click.option(
    "-n",
    "--number",
    type=click.IntRange(0, MAX_ENTRIES),
    default=20,
    show_default=True,
    help="How many entries to show: the last ones.",
)
@click.option("--check", is_flag=True, help="Read all of it, and every alias, and check that nothing was changed.")
@json_option
def command(registry: StoredRegistry, number: int, check: bool, as_json: bool) -> None:
    """Show what was done in a registry: who, what, when and why, the last act at the end.

    An act is logged before it is seen, so an entry may tell of a move whose process was killed in between.

    With --check, the log, the orders and all aliases are read: each record must follow the one before, and every move,
    order and revision must be in the log. A whole end of everything that was cut off leaves no trace: keep the digest
    of the log's last entry elsewhere.
    """
    registry.mark.check()
    checked = check_chains(registry) if check else None
    entries = registry.log.tail(number)
    if as_json:
        found: dict[str, Any] = {"entries": [_document(entry) for entry in entries]}
        echo_json(found | ({"checked": asdict(checked)} if checked else {}))
        return
    rows = [(entry.at, *_cells(entry)) for entry in entries]
    if rows:
        echo_table(("WHEN", "WHO", "ACT", "WHAT", "WHY"), rows)
    if checked:
        click.echo(
            f"checked: log entries {checked.log}, orders {checked.orders}, aliases {checked.aliases}, revisions "
            f"{checked.revisions}; nothing changed; the log's last is {checked.head or 'none'}"
        )
    elif not rows:
        click.echo("nothing was done here yet" if number else "no entry was asked for; -n says how many")


def _document(entry: Entry) -> dict[str, Any]:
    return {**entry.facts, "act": entry.act, "at": entry.at, "entry": entry.digest, "number": entry.number}


def _cells(entry: Entry) -> tuple[str, str, str, str]:
    facts = entry.facts
    what = str(facts.get("revision") or facts.get("digest") or "")
    if name := facts.get("name"):
        alias = f"{name}:{facts['alias']} to " if facts.get("alias") else f"{name}@"
        what = f"{alias}{what}"
    return str(facts.get("actor") or ""), entry.act, what, str(facts.get("reason") or "")
