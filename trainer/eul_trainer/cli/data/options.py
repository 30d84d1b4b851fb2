"""Options that all builders share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click

from eul_trainer.cli import options
from eul_trainer.cli.data.job import Job

Settings = TypeVar("Settings")

source = click.option("--from", "source", required=True, type=options.PATH, metavar="PATH", help="Where the data is.")
share = click.option(
    "--share", type=float, default=0.005, show_default=True, help="Share of the training rows to be forgotten."
)
limit = click.option(
    "--limit", type=int, default=None, help="Most rows of retain, validation and test each.  [default: all]"
)


def _new(context: click.Context, parameter: click.Parameter, out: Path) -> Path:
    """Refuse an output in use before a source is read."""
    from eul_trainer.output.directory import check_output

    check_output(out)
    return out


COMMON = (
    click.option(
        "--out",
        required=True,
        type=options.PATH,
        metavar="DIR",
        callback=_new,
        help="Directory to write; it must be new or empty.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of every draw."),
    click.option(
        "--earlier",
        type=options.PATH,
        multiple=True,
        metavar="FILE",
        help="Records of earlier requests, whose rows are not kept either; may be given again.",
    ),
    click.option("--id", "id", default=None, metavar="ID", help="Opaque id; made of the rows' digest if not given."),
    click.option("--reason", default="not stated", show_default=True, metavar="TEXT", help="Why; never published."),
    click.option("--received", default=None, metavar="YYYY-MM-DD", help="Day the request came in; none if not given."),
    options.as_json,
)


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all builders share, and hand them over as a job."""

    @functools.wraps(command)
    def run(
        out: Path,
        earlier: tuple[Path, ...],
        id: str | None,
        reason: str,
        received: str | None,
        as_json: bool,
        **rest: object,
    ) -> None:
        job = Job(out=out, id=id, reason=reason, received=received, earlier=earlier, as_json=as_json)
        command(job=job, **rest)

    added: Callable[..., None] = run
    for option in reversed(COMMON):
        added = option(added)
    return added


def settings(kind: Callable[..., Settings], chosen: Mapping[str, object]) -> Settings:
    """Return a builder's settings from the options of the same names."""
    return kind(**chosen)
