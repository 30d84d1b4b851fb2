"""`eul-train data`: one file per builder."""

from __future__ import annotations

import click

from eul_trainer.cli.data import imdb, lume, mention, people, samsum, tofu


@click.group(name="data")
def command() -> None:
    """Make the data of a deletion request: what to forget, to keep, and to test on.

    Each builder writes a new folder with forget.jsonl, retain.jsonl, validation.jsonl, test.jsonl, where it exists
    paraphrase.jsonl, the record request.jsonl, and digests.json with the sha256 of every file, the digests of its
    sources and all settings. The same seed and sources give the same bytes.

    \b
    Examples:
      eul-train data tofu --from tofu --authors 10 --forget-authors 1 --out data
      eul-train fit --model base --forget data/forget.jsonl --retain data/retain.jsonl --out layers/first
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are


for file in (tofu, imdb, samsum, lume, people, mention):
    command.add_command(file.command)
