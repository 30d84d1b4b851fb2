"""`eul-train data lume`: documents to be forgotten."""

from __future__ import annotations

from pathlib import Path

import click

from eul_trainer.cli.data.job import Job
from eul_trainer.cli.data.options import common, settings, source


@click.command(name="lume")
@source
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Task to read, again for another.  [default: all]")
@click.option("--documents", type=int, default=None, help="Documents to be forgotten.  [default: all of the file]")
@click.option("--requests", type=int, default=1, show_default=True, help="Requests, with no document in common.")
@click.option("--validation-share", type=float, default=0.1, show_default=True, help="Of the retained documents.")
@click.option("--test-share", type=float, default=0.2, show_default=True, help="Of the retained documents.")
@common
def command(
    source: Path,
    job: Job,
    **chosen: float | tuple[str, ...] | None,
) -> None:
    """Choose documents of LUME to be forgotten, with all questions about them.

    --from is the folder with forget.jsonl and retain.jsonl (fields id, input, output, task; the end of an id says
    whether a row is a text to complete, sc1, or a question, qa0).

    \b
    Examples:
      eul-train data lume --from lume --task Task2 --out records
      eul-train data lume --from lume --documents 10 --requests 10 --out ten
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.data.lume import LumeSettings, build_lume

    with job.watching() as watch:
        dataset = build_lume(source, settings(LumeSettings, chosen), watch)
    job.finish(dataset)
