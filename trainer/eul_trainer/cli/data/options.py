"""Options that all builders share, and what they print at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from eul_trainer.cli import options
from eul_trainer.cli.main import emit
from eul_trainer.cli.progress import progress

if TYPE_CHECKING:
    from eul_trainer.data.dataset import Dataset
    from eul_trainer.records import Watch

Command = TypeVar("Command", bound=Callable[..., None])
Settings = TypeVar("Settings")

PERCENT = 100

source = click.option("--from", "source", required=True, type=options.PATH, metavar="PATH", help="Where the data is.")
seed = click.option("--seed", type=int, default=0, show_default=True, help="Seed of every draw.")

share = click.option(
    "--share", type=float, default=0.005, show_default=True, help="Share of the training rows to be forgotten."
)
limit = click.option(
    "--limit", type=int, default=None, help="Most rows of retain, validation and test each.  [default: all]"
)


def common(command: Command) -> Command:
    """Add the options of the output, the request's record and the seed."""
    for option in (
        options.as_json,
        click.option(
            "--received", default=None, metavar="YYYY-MM-DD", help="Day the request came in; left out if not given."
        ),
        click.option("--reason", default="not stated", show_default=True, metavar="TEXT", help="Why; never published."),
        click.option(
            "--id", "id", default=None, metavar="ID", help="Opaque id; made of the rows' digest if not given."
        ),
        seed,
        options.out,
    ):
        command = option(command)
    return command


def settings(kind: Callable[..., Settings], chosen: Mapping[str, object]) -> Settings:
    """Return a builder's settings from the options of the same names."""
    return kind(**chosen)


def finish(dataset: Dataset, out: Path, *, id: str | None, reason: str, received: str | None, as_json: bool) -> None:
    """Write the folder and say what is in it."""
    from eul_trainer.data.dataset import Receipt, write_dataset

    record = write_dataset(out, dataset, Receipt(id=id, reason=reason, received=received))
    if as_json:
        emit({"path": str(out), **record})
        return
    click.echo(f"wrote {out}: " + ", ".join(f"{name} {entry['rows']}" for name, entry in _sets(record)))
    for name, count in record["notes"]["removed"].items():
        click.echo(f"took {count} rows out of {name}.jsonl that are to be forgotten", err=True)
    if asked := record["notes"]["same_prompts"]:
        click.echo(f"{asked} rows of retain.jsonl ask what a row to forget asks, with another answer", err=True)


def _sets(record: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name.removesuffix(".jsonl"), entry) for name, entry in record["files"].items()]


@contextmanager
def watching(quiet: bool) -> Iterator[Watch]:
    """Show how much of the sources is read, while the context lasts."""
    shown = 0
    with progress("read", PERCENT, quiet) as advance:

        def watch(done: int, total: int) -> None:
            nonlocal shown
            percent = PERCENT * done // max(total, 1)
            if percent != shown:
                shown = percent
                advance(percent, "percent")

        yield watch
