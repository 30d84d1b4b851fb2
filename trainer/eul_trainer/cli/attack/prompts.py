"""`eul-train attack prompts`: other ways of asking."""

from __future__ import annotations

from typing import Any

import click

from eul_trainer.cli.attack.shared import attack_options, finish, read_asked
from eul_trainer.cli.evaluating import run_evaluation
from eul_trainer.cli.server import ServerOptions, reached, server_options


@click.command(name="prompts")
@attack_options
@server_options
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of which rows are examples.")
def command(seed: int, server: ServerOptions, **given: Any) -> None:  # noqa: ANN401  # the shared options
    """Ask in other words and formats, with the beginning of the answer, and behind examples of other forgotten rows.

    Other words are those of a row's field `paraphrased_question`, which `eul-train data tofu` writes.

    \b
    Examples:
      eul-train attack prompts --model base --bundle fused --forget alice.heldout.jsonl --twin twin --out attacked
      eul-train attack prompts --model base --bundle fused --forget alice.heldout.jsonl --server 127.0.0.1:8500 \\
          --server-token token --out served
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.attacks.asking import asked_sets, results
    from eul_trainer.attacks.prompts import prompt_attacks

    asked, sets = read_asked(**given)
    attacks = prompt_attacks(seed)
    with reached(asked, server) as ready:
        evaluation, _ = run_evaluation("attack", ready, asked_sets(sets, attacks))
    finish(given["out"], ready, results(evaluation, sets, attacks), evaluation.served_as_measured)
