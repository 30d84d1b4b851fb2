"""`eul copy`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from eul_serve.cli.complete import complete_reference
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import (
    REGISTRY_HELP,
    actor_option,
    json_option,
    parse_name,
    parse_reference,
    parse_registry,
    registry_option,
    unforget_option,
)
from eul_serve.cli.progress import progress, total
from eul_serve.cli.text import echo_json
from eul_serve.format import Reference, read_bundle
from eul_serve.registry import Published, Registry
from eul_serve.registry.disk import disk_errors


@click.command(
    epilog=examples(
        "eul copy poems --to /mnt/backup/registry",
        "eul copy poems:canary --to /srv/production --name poems --alias stable",
    )
)
@click.argument("reference", metavar="REF", callback=parse_reference, shell_complete=complete_reference)
@registry_option
@click.option(
    "--to", "target", metavar="URL", callback=parse_registry, required=True, help=f"Where to. {REGISTRY_HELP}"
)
@click.option("--name", callback=parse_name, help="Name to publish it under there; the one it has here by default.")
@click.option("--alias", callback=parse_name, help="Alias to move to it there, last of all; none by default.")
@click.option("--with-statistics", is_flag=True, help="Copy the fusion statistics too; they nearly show the data.")
@unforget_option
@actor_option
@json_option
def command(
    reference: Reference,
    registry: Registry,
    target: Registry,
    name: str | None,
    alias: str | None,
    with_statistics: bool,
    allow_unforget: str | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Copy the bundle that REF means now to another registry, with its signatures; copying again changes nothing.

    Every byte is checked on the way. A banned revision is not copied. An alias there is not moved to a bundle that
    lacks a request which it covers, unless --allow-unforget says why. Holds and bans stay behind.
    """
    revision = registry.resolve(reference)
    registry.standing().check_usable(str(reference), revision)
    manifest = registry.manifest(reference.name, revision)
    signatures = registry.signatures(reference.name, revision)
    bytes_ = 2 * total(manifest, with_statistics=with_statistics)
    with (
        disk_errors("temporary directory", "set TMPDIR to one that is there"),
        tempfile.TemporaryDirectory(prefix="eul-copy-") as place,
        progress("copying", bytes_, shown=not as_json) as on_bytes,
    ):
        staged = Path(place) / "bundle"
        registry.fetch(reference.name, revision, staged, with_statistics=with_statistics, on_bytes=on_bytes)
        done = target.publish(
            read_bundle(staged),
            name or reference.name,
            alias,
            with_statistics=with_statistics,
            allow_unforget=allow_unforget,
            actor=actor,
            on_bytes=on_bytes,
            signatures=signatures,
        )
    if as_json:
        found = {"moved": done.moved, "name": done.name, "new": done.new, "reference": done.reference}
        echo_json({**found, "alias": alias, "revision": done.revision, "signatures": len(signatures)})
    else:
        click.echo(_sentence(done, alias, len(signatures)))
        click.echo(done.reference)


def _sentence(done: Published, alias: str | None, signatures: int) -> str:
    words = "copied" if done.new else "there already"
    words += f", signatures {signatures}" if signatures else ""
    if alias is None:
        return words
    return f"{words}; {done.name}:{alias} {'moved to it' if done.moved else 'points to it already'}"
