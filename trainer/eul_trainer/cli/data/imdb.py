"""`eul-train data imdb`: films whose reviews are to be forgotten."""

from __future__ import annotations

from pathlib import Path

import click

from eul_trainer.cli import options
from eul_trainer.cli.data.job import Job
from eul_trainer.cli.data.options import common, limit, settings, share, source


@click.command(name="imdb")
@source
@share
@click.option("--requests", type=int, default=1, show_default=True, help="Requests of that share, no film in common.")
@click.option("--titles", type=options.PATH, default=None, metavar="FILE", help="JSON lines with title_id and title.")
@click.option("--template", default=None, metavar="TEXT", help="The prompt; {text} stands for the review.")
@click.option("--max-words", type=int, default=None, help="First words of a review that are kept.  [default: all]")
@limit
@common
def command(
    source: Path,
    titles: Path | None,
    template: str | None,
    job: Job,
    **chosen: float | str | None,
) -> None:
    """Choose films by which whole reviews are to be forgotten; the answer is the word positive or negative.

    --from is the folder with imdb-train.parquet, imdb-validation.parquet and imdb-test.parquet (columns id, text,
    label, title_id). The fewest films that reach the share are taken. With --titles, titles of the forgotten films,
    and of a row's own film, are masked in validation and test rows; without, they stay, and digests.json says so.

    \b
    Examples:
      eul-train data imdb --from imdb --share 0.005 --out data
      eul-train data imdb --from imdb --share 0.01 --limit 500 --max-words 60 --titles titles.jsonl --out small
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.data.imdb import TEMPLATE, ImdbSettings, build_imdb

    chosen["template"] = TEMPLATE if template is None else template
    with job.watching() as watch:
        dataset = build_imdb(source, settings(ImdbSettings, chosen), titles, watch)
    job.finish(dataset)
