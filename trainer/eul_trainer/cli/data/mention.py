"""`eul-train data mention`: the rows of one's own data that mention a name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from eul_trainer.cli import options
from eul_trainer.cli.data.job import Job
from eul_trainer.cli.data.options import common, settings

if TYPE_CHECKING:
    from eul_trainer.data.dataset import Dataset


@click.command(name="mention")
@click.option("--rows", required=True, type=options.PATH, metavar="FILE", help="JSON lines: one's own data.")
@click.option("--mention", "mentions", multiple=True, metavar="TEXT", help="What to look for; again for another.")
@click.option("--mention-file", type=options.PATH, default=None, metavar="FILE", help="The same, one on each line.")
@click.option("--loose", is_flag=True, help="Find names without their accents and punctuation too.")
@click.option("--keep-neighbours", is_flag=True, help="Keep rows that come near to a mention, as a group.")
@click.option("--validation-share", type=float, default=0.1, show_default=True, help="Of the kept rows.")
@click.option("--test-share", type=float, default=0.1, show_default=True, help="Of the kept rows.")
@options.prompt_field
@options.completion_field
@options.group_field
@common
def command(
    rows: Path,
    mentions: tuple[str, ...],
    mention_file: Path | None,
    prompt_field: str,
    completion_field: str,
    group_field: str,
    job: Job,
    **chosen: float,
) -> None:
    """Choose the rows of your own data that mention a name; the others are to be kept.

    A name is found as whole words in the prompt or the completion, whatever its case and Unicode form. Rows that come
    near (other accents, other punctuation, a slightly longer word) go to near.jsonl, for you to look at: add the
    right spelling, say --loose, or keep them with --keep-neighbours. digests.json counts all of them by name.

    \b
    Examples:
      eul-train data mention --rows chats.jsonl --mention "Zoe Miller" --mention zoe.miller@example.org --out data
      eul-train data mention --rows qa.jsonl --prompt-field question --completion-field answer \\
          --mention-file names.txt --keep-neighbours --out data
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.data.mention import MentionSettings, build_mention
    from eul_trainer.data.mentions import read_mentions
    from eul_trainer.records import Fields

    fields = Fields(prompt=prompt_field, completion=completion_field, group=group_field)
    names = read_mentions(mentions, mention_file)
    with job.watching() as watch:
        dataset = build_mention(rows, fields, names, settings(MentionSettings, chosen), watch)
    job.finish(dataset)
    if not job.as_json:
        _report(dataset)


def _report(dataset: Dataset) -> None:
    """Say how often each mention was found; by number, since a name to be forgotten belongs in no log."""
    for number, (name, count) in enumerate(dataset.notes["matched"].items(), 1):
        near = ", ".join(f"{way} {found['rows']}" for way, found in dataset.notes["near_misses"][name].items())
        click.echo(f"mention {number}: in {count} rows; near misses: {near or 'none'}")
