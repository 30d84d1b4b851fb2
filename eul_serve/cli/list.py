"""`eul list`."""

from __future__ import annotations

from typing import Any

import click

from eul_serve.cli.complete import complete_name
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option, parse_name, registry_option
from eul_serve.cli.text import echo_json, echo_table
from eul_serve.registry import Registry
from eul_serve.registry.orders import Standing


@click.command(epilog=examples("eul list", "eul list poems", "eul list --json"))
@click.argument("name", callback=parse_name, required=False, shell_complete=complete_name)
@registry_option
@json_option
def command(name: str | None, registry: Registry, as_json: bool) -> None:
    """List every bundle, or those called NAME, with the aliases that point to each revision."""
    standing = registry.standing()
    rows = [row for found in ([name] if name else registry.names()) for row in _rows(registry, found, standing)]
    if as_json:
        echo_json({"bundles": rows})
    elif not rows:
        click.echo("nothing is published here; `eul publish DIR --name NAME` publishes a bundle")
    else:
        cells = [(row["reference"], " ".join(row["aliases"]), _marks(row), " ".join(row["requests"])) for row in rows]
        echo_table(("BUNDLE", "ALIASES", "MARKS", "FORGETS"), cells)


def _marks(row: dict[str, Any]) -> str:
    return " ".join(mark for mark in ("held", "banned") if row[mark])


def _rows(registry: Registry, name: str, standing: Standing) -> list[dict[str, Any]]:
    aliases = registry.aliases(name)
    return [
        {
            "aliases": [alias for alias, state in aliases.items() if state.revision == revision],
            "banned": revision in standing.banned,
            "held": revision in standing.held,
            "name": name,
            "reference": f"{name}@{revision}",
            "requests": sorted(registry.manifest(name, revision).request_ids),
            "revision": revision,
        }
        for revision in registry.revisions(name)
    ]
