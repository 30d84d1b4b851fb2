"""`eul audit`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from eul_serve.audit import read_chain
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option
from eul_serve.cli.text import echo_json
from eul_serve.errors import BundleFormatError
from eul_serve.plain import plain


@click.command(epilog=examples("eul audit audit.jsonl", "eul audit audit.jsonl --head sha256:..."))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--head", metavar="DIGEST", help="The log must have an entry with this digest.")
@click.option("--entries", "show", is_flag=True, help="Print every entry.")
@json_option
def command(file: Path, head: str | None, show: bool, as_json: bool) -> None:
    """Check that nothing in an audit log was changed, moved, added or taken out.

    Prints how many entries FILE has, and the digest of the last one. Lines cut off at its end leave no trace in it:
    keep that digest elsewhere, and compare it with --head.
    """
    count, last, found = 0, "", head is None
    for entry in read_chain(file):
        count, last = entry.number, entry.digest
        found = found or entry.digest == head
        if show:
            facts = json.dumps(dict(entry.facts), sort_keys=True)
            line = {"act": entry.act, "at": entry.at, "facts": dict(entry.facts), "number": entry.number}
            click.echo(json.dumps(line, sort_keys=True) if as_json else plain(f"{entry.at}  {entry.act}  {facts}"))
    if not found:
        raise BundleFormatError(
            f"audit log {str(file)!r}: expected an entry with digest {head}, found none among {count}; "
            "its end was cut off, or it is another log"
        )
    if as_json and not show:
        echo_json({"entries": count, "head": last})
    elif not as_json:
        click.echo(f"{count} entries, nothing changed; the last is {last or 'none'}")
