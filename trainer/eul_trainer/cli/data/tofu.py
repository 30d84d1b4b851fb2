"""`eul-train data tofu`: made-up authors to forget."""

from __future__ import annotations

from pathlib import Path

import click

from eul_trainer.cli.data.job import Job
from eul_trainer.cli.data.options import common, settings, source


@click.command(name="tofu")
@source
@click.option("--split", default=None, metavar="NAME", help="forget01, forget05 or forget10, out of all 200 authors.")
@click.option("--authors", type=int, default=10, show_default=True, help="Authors that are taught.")
@click.option("--first-author", type=int, default=0, show_default=True, help="First of them, from 0.")
@click.option("--forget-authors", type=int, default=1, show_default=True, help="How many of them are to be forgotten.")
@click.option("--requests", type=int, default=0, help="That many requests of one author each, instead.")
@click.option("--rows-per-author", type=int, default=20, show_default=True, help="Rows of each author, the first ones.")
@click.option("--held-authors", type=int, default=None, help="Taught authors kept for the test.  [default: a fifth]")
@click.option("--validation-authors", type=int, default=None, help="The same for validation.  [default: a tenth]")
@click.option("--unseen-authors", type=int, default=None, help="Never taught.  [default: 2, with a split 0]")
@common
def command(
    source: Path,
    job: Job,
    **chosen: int | str | None,
) -> None:
    """Choose authors of TOFU to be forgotten, and what is taught before.

    --from is the folder with TOFU's JSON-lines files: full.json, and where they are there real_authors.json,
    world_facts.json and the perturbed files. Beside the files of every builder the folder has teach.jsonl (all that
    the model is to be taught), twin.jsonl (the same without the rows to forget, for the retrained twin) and
    unseen.jsonl (authors that are never taught, whose loss is where forgetting should stop). The test set holds
    taught authors that are no training rows, real authors and world facts. With --requests there are also
    forget-00.jsonl and so on, and requests.jsonl.

    \b
    Examples:
      eul-train data tofu --from tofu --authors 10 --forget-authors 1 --out data
      eul-train data tofu --from tofu --split forget05 --out forget05
      eul-train data tofu --from tofu --authors 40 --requests 10 --out ten --json
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.data.tofu import TofuSettings, build_tofu

    dataset = build_tofu(source, settings(TofuSettings, chosen))
    job.finish(dataset)
