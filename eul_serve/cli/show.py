"""`eul show`."""

from __future__ import annotations

import click

from eul_serve.cli.card import echo_card, read_card
from eul_serve.cli.complete import complete_reference
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option, parse_reference, registry_option
from eul_serve.cli.text import echo_json
from eul_serve.format import Reference
from eul_serve.registry import Registry


@click.command(epilog=examples("eul show poems", "eul show poems:canary --json"))
@click.argument("reference", metavar="REF", callback=parse_reference, shell_complete=complete_reference)
@registry_option
@json_option
def command(reference: Reference, registry: Registry, as_json: bool) -> None:
    """Show the bundle that REF means: what it forgets, what it was made from, and who moved its aliases.

    Also whether it is held or banned, how many signatures it has, and its parents, theirs, and so on, as far as they
    are published here. REF is NAME (its alias `stable`), NAME:ALIAS or NAME@sha256:...
    """
    card = read_card(registry, reference.name, registry.resolve(reference))
    if as_json:
        echo_json(card)
    else:
        echo_card(card)
