"""`eul-train attack`: one file per attack."""

from __future__ import annotations

import click

from eul_trainer.cli.attack import choosing, prompts, relearning, replacing, rounding, sampling


@click.group(name="attack")
def command() -> None:
    """Try to bring back what bundles hide, and say how much comes back.

    Each attack has a budget, and writes attack.json. Give a twin, a model that was taught the same without what is to
    be forgotten: only beside it can be said what an attack brought back, and what anybody could have guessed.

    \b
    Examples:
      eul-train attack prompts --model base --bundle fused --forget alice.heldout.jsonl --twin twin --out prompts
      eul-train attack rounding --model base --bundle fused --forget alice.heldout.jsonl --twin twin --out rounding
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are


for file in (prompts, choosing, sampling, replacing, rounding, relearning):
    command.add_command(file.command)
