"""`eul-train revoke`: a fused bundle without one of its requests."""

from __future__ import annotations

from pathlib import Path

import click

from eul_trainer.cli import options
from eul_trainer.cli.main import emit


@click.command(name="revoke")
@click.argument("bundle", type=options.PATH, metavar="DIR")
@click.option("--request", required=True, metavar="ID", help="The request to take out.")
@options.out
@options.as_json
def command(bundle: Path, request: str, out: Path, as_json: bool) -> None:
    """Take a request out of a fused bundle and fuse the rest again, with no data at hand.

    The result equals a fusion of the other layers with the same settings.

    \b
    Example:
      eul-train revoke fused --request alice --out fused-without-alice
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.fusion.fuse import revoke

    rest = revoke(bundle, request, out)
    requests = [item.id for item in rest.manifest.requests]
    if as_json:
        emit({"path": str(rest.path), "revision": rest.revision, "requests": requests, "rank": rest.config.rank})
        return
    click.echo(f"took out {request}; left are {', '.join(requests)}")
    click.echo(f"wrote {rest.path} {rest.revision}")
