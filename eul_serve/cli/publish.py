"""`eul publish`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from eul_serve.cli.lazy import examples
from eul_serve.cli.options import (
    actor_option,
    json_option,
    parse_name,
    registry_option,
    unforget_option,
)
from eul_serve.cli.text import echo_json, size
from eul_serve.format import Bundle, read_bundle
from eul_serve.registry import Published, Registry
from eul_serve.registry.base import OnBytes


@click.command(
    epilog=examples(
        "eul publish build/layer --name poems",
        "eul publish build/fused --name poems --alias stable",
        "eul publish build/fused --name poems --alias stable --dry-run",
    )
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@registry_option
@click.option("--name", callback=parse_name, required=True, help="Name to publish under.")
@click.option("--alias", callback=parse_name, help="Alias to move to the bundle, last of all.")
@click.option("--with-statistics", is_flag=True, help="Publish the fusion statistics too; they nearly show the data.")
@unforget_option
@actor_option
@click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
@json_option
def command(
    directory: Path,
    registry: Registry,
    name: str,
    alias: str | None,
    with_statistics: bool,
    allow_unforget: str | None,
    actor: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Check the bundle in DIR and store it; publishing again changes nothing.

    The last line printed is the reference NAME@sha256:..., which never means anything else.

    An alias is not moved to a bundle that lacks a request which it covers now, unless --allow-unforget says why.
    """
    bundle = read_bundle(directory)
    with _progress(bundle, shown=not (as_json or dry_run)) as on_bytes:
        done = registry.publish(
            bundle,
            name,
            alias,
            with_statistics=with_statistics,
            allow_unforget=allow_unforget,
            actor=actor,
            dry_run=dry_run,
            on_bytes=on_bytes,
        )
    if as_json:
        echo_json(
            {
                "alias": alias,
                "dry_run": dry_run,
                "moved": done.moved,
                "name": name,
                "new": done.new,
                "reference": done.reference,
                "revision": done.revision,
            }
        )
    else:
        click.echo(_sentence(bundle, done, alias, dry_run=dry_run))
        click.echo(done.reference)


def _sentence(bundle: Bundle, done: Published, alias: str | None, *, dry_run: bool) -> str:
    total = size(sum(entry.size for entry in bundle.manifest.files.values()))
    would = "would be " if dry_run else ""
    first = f"{would}published ({total})" if done.new else "already published"
    if alias is None:
        return first
    return f"{first}; {done.name}:{alias} {f'{would}moved to it' if done.moved else 'points to it already'}"


@contextmanager
def _progress(bundle: Bundle, *, shown: bool) -> Iterator[OnBytes | None]:
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    entries = {**bundle.manifest.files, **bundle.manifest.artifacts}
    columns = (TextColumn("publishing"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("publish", total=sum(entry.size for entry in entries.values()))
        yield lambda count: progress.advance(task, count)
