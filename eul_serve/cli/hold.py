"""`eul hold`."""

from __future__ import annotations

import click

from eul_serve.cli.complete import complete_reference
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import actor_option, json_option, parse_reference, reason_option, registry_option
from eul_serve.cli.text import echo_json
from eul_serve.format import Reference
from eul_serve.registry import Registry


@click.command(
    epilog=examples(
        'eul hold poems --reason "evidence of case 17"',
        'eul hold poems@sha256:... --reason "layer that the next fusion needs"',
        'eul hold --release poems@sha256:... --reason "case 17 is closed"',
    )
)
@click.argument("reference", metavar="REF", callback=parse_reference, shell_complete=complete_reference)
@registry_option
@click.option("--release", is_flag=True, help="End the hold.")
@reason_option
@actor_option
@json_option
def command(
    reference: Reference, registry: Registry, release: bool, reason: str, actor: str | None, as_json: bool
) -> None:
    """Keep the revision that REF means now from `eul gc` and from deletion, until the hold is released.

    REF is NAME (its alias `stable`), NAME:ALIAS or NAME@sha256:... A hold is of the revision, under every name.
    """
    revision = reference.revision if release and reference.revision else registry.resolve(reference)
    changed = registry.order("release" if release else "hold", revision, reason, actor)
    if not release:
        registry.manifest(reference.name, revision)  # a collection may have been faster; then this says so
    if as_json:
        echo_json({"changed": changed, "held": not release, "name": reference.name, "revision": revision})
    else:
        click.echo(_sentence(release=release, changed=changed))
        click.echo(f"{reference.name}@{revision}")


def _sentence(*, release: bool, changed: bool) -> str:
    if release:
        return "released: `eul gc` may remove it" if changed else "it was not held"
    return "held" if changed else "held already; the reason given before stands"
