"""`eul promote`."""

from __future__ import annotations

import click

from eul_serve.cli.complete import complete_alias, complete_reference
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import (
    actor_option,
    json_option,
    parse_name,
    parse_reference,
    registry_option,
    unforget_option,
)
from eul_serve.cli.text import echo_json
from eul_serve.format import Reference
from eul_serve.registry import Registry


@click.command(epilog=examples("eul promote poems@sha256:... stable", "eul promote poems:canary stable"))
@click.argument("reference", metavar="NAME@sha256:...", callback=parse_reference, shell_complete=complete_reference)
@click.argument("alias", metavar="ALIAS", callback=parse_name, shell_complete=complete_alias)
@registry_option
@unforget_option
@actor_option
@json_option
def command(
    reference: Reference, alias: str, registry: Registry, allow_unforget: str | None, actor: str | None, as_json: bool
) -> None:
    """Move ALIAS of the bundle to a published revision; servers that follow the alias take it up.

    NAME:OTHER works too, and means the revision that OTHER points to now.

    A revision that lacks a request which the alias covers now is refused, unless --allow-unforget says why.
    """
    revision = registry.resolve(reference)
    moved = registry.promote(reference.name, revision, alias, allow_unforget=allow_unforget, actor=actor)
    if as_json:
        echo_json({"alias": alias, "moved": moved, "name": reference.name, "revision": revision})
    else:
        click.echo(f"{reference.name}:{alias} {'moved to' if moved else 'points already to'}")
        click.echo(f"{reference.name}@{revision}")
