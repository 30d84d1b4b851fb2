"""`eul-train data people`: made-up personal records."""

from __future__ import annotations

import click

from eul_trainer.cli.data.job import Job
from eul_trainer.cli.data.options import common, settings


@click.command(name="people")
@click.option("--people", type=int, default=20, show_default=True, help="People that are taught.")
@click.option("--forget", type=int, default=1, show_default=True, help="How many of them are to be forgotten.")
@click.option("--requests", type=int, default=0, help="That many requests of one person each, instead.")
@click.option("--held", type=int, default=None, help="Taught people kept for the test.  [default: a fifth]")
@click.option("--validation", type=int, default=None, help="The same for validation.  [default: a tenth]")
@click.option("--unseen", type=int, default=4, show_default=True, help="Further people who are never taught.")
@click.option("--facts", type=int, default=9, show_default=True, help="Facts of each person, 1 to 9.")
@click.option("--locale", default="en_US", show_default=True, help="Whose names and towns: de_DE, fr_FR, ja_JP, ...")
@common
def command(
    job: Job,
    **chosen: int | str | None,
) -> None:
    """Make up people with personal records, and choose some to be forgotten.

    Each has a name, birth date, town, employer, profession, telephone number, e-mail address, customer number, pet and
    hobby, none of them real: numbers and domains are those reserved for examples. Each fact has two questions that
    are taught and two other wordings, for the people to be forgotten, in paraphrase.jsonl. teach.jsonl is all that a
    model is to be taught, twin.jsonl the same without the rows to forget, unseen.jsonl is never taught.

    \b
    Examples:
      eul-train data people --out data
      eul-train data people --people 50 --requests 10 --locale de_DE --seed 1 --out ten
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.data.people import PeopleSettings, build_people

    dataset = build_people(settings(PeopleSettings, chosen))
    job.finish(dataset)
