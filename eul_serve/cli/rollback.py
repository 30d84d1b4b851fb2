"""`eul rollback`."""

from __future__ import annotations

import click

from eul_serve.cli.complete import complete_alias, complete_name
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import actor_option, json_option, parse_name, registry_option, unforget_option
from eul_serve.cli.text import echo_json
from eul_serve.registry import Registry


@click.command(
    epilog=examples(
        "eul rollback poems stable",
        'eul rollback poems stable --allow-unforget "request r7 was withdrawn, ticket 4711"',
    )
)
@click.argument("name", metavar="NAME", callback=parse_name, shell_complete=complete_name)
@click.argument("alias", metavar="ALIAS", callback=parse_name, shell_complete=complete_alias)
@registry_option
@unforget_option
@actor_option
@json_option
def command(
    name: str, alias: str, registry: Registry, allow_unforget: str | None, actor: str | None, as_json: bool
) -> None:
    """Move ALIAS of NAME back to the revision before its current one; twice goes back by two.

    A revision that lacks a request which the alias covers now is refused, unless --allow-unforget says why.
    """
    revision = registry.rollback(name, alias, allow_unforget=allow_unforget, actor=actor)
    if as_json:
        echo_json({"alias": alias, "moved": True, "name": name, "revision": revision})
    else:
        click.echo(f"{name}:{alias} moved back to")
        click.echo(f"{name}@{revision}")
