"""`eul pull`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from eul_serve.cli.complete import complete_reference
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option, parse_reference, registry_option
from eul_serve.cli.progress import progress, total
from eul_serve.cli.text import echo_json, size
from eul_serve.errors import InputError
from eul_serve.format import Reference, read_bundle
from eul_serve.registry import Registry
from eul_serve.registry.disk import disk_errors


@click.command(
    epilog=examples(
        "eul pull poems build/poems",
        "eul pull poems@sha256:... build/layer --with-statistics",
    )
)
@click.argument("reference", metavar="REF", callback=parse_reference, shell_complete=complete_reference)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@registry_option
@click.option("--with-statistics", is_flag=True, help="Fetch the fusion statistics too; they nearly show the data.")
@json_option
def command(reference: Reference, directory: Path, registry: Registry, with_statistics: bool, as_json: bool) -> None:
    """Write the bundle that REF means now to DIR, which must be new, with every byte checked.

    DIR appears whole or not at all. It is what `eul publish` takes, and in the layout of a Hugging Face repository.
    """
    if os.path.lexists(directory):
        raise InputError(f"directory {str(directory)!r}: there is one already; name a new one")
    revision = registry.resolve(reference)
    manifest = registry.manifest(reference.name, revision)
    if with_statistics and not manifest.artifacts:
        raise InputError(
            f"{reference.name}@{revision}: --with-statistics: it has no fusion statistics; pull without it"
        )
    order = registry.standing().banned.get(revision)
    bytes_ = total(manifest, with_statistics=with_statistics)
    with (
        disk_errors(f"directory {str(directory)!r}", "make the directory that it is to be in"),
        tempfile.TemporaryDirectory(prefix=".eul-pull-", dir=directory.parent) as place,
    ):
        staged = Path(place) / "bundle"
        with progress("pulling", bytes_, shown=not as_json) as on_bytes:
            registry.fetch(reference.name, revision, staged, with_statistics=with_statistics, on_bytes=on_bytes)
        read_bundle(staged)
        os.rename(staged, directory)
    if as_json:
        found = {"directory": str(directory), "name": reference.name, "revision": revision}
        echo_json({**found, "banned": order is not None, "statistics": with_statistics})
        return
    click.echo(f"verified and written ({size(bytes_)})")
    if order is not None:
        click.echo(f"it is banned since {order.at}, so do not serve it: {order.reason}")
    click.echo(f"{reference.name}@{revision}")
