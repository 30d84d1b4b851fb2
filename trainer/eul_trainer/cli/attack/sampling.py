"""`eul-train attack sampling`: the best of many answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from eul_trainer.allowed import check
from eul_trainer.cli.attack.shared import attack_options, finish, read_asked
from eul_trainer.cli.evaluating import for_each_system
from eul_trainer.cli.server import ServerOptions, reached, server_options

if TYPE_CHECKING:
    from eul_trainer.attacks.result import AttackResult
    from eul_trainer.evaluation.answerer import Draws
    from eul_trainer.evaluation.cache import Cache
    from eul_trainer.evaluation.scoring import Tick
    from eul_trainer.evaluation.systems import Systems
    from eul_trainer.records import Row


@click.command(name="sampling")
@attack_options
@server_options
@click.option(
    "--draws", type=click.IntRange(1, 1000), default=20, show_default=True, help="Answers drawn for each row."
)
@click.option("--temperature", type=float, default=1.0, show_default=True, help="What they are drawn at.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the draws.")
def command(
    draws: int,
    temperature: float,
    seed: int,
    server: ServerOptions,
    **given: Any,  # noqa: ANN401  # the shared options
) -> None:
    """Draw many answers to each question and take the one that repeats most of the true answer.

    \b
    Examples:
      eul-train attack sampling --model base --bundle fused --forget alice.heldout.jsonl --twin twin --out attacked
      eul-train attack sampling --model base --bundle fused --forget alice.heldout.jsonl --server 127.0.0.1:8500 \\
          --server-token token --out served
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.attacks.sampling import sampling
    from eul_trainer.evaluation.answerer import Draws

    check(0 < temperature <= 10, "temperature", temperature, "above 0 and at most 10")
    asked, sets = read_asked(**given)
    how = Draws(count=draws, tokens=asked.tokens, temperature=temperature, seed=seed)
    found: list[AttackResult] = []
    with reached(asked, server) as ready:
        for chosen in sets:
            compute = partial(_drawn, rows=chosen.rows, how=how)
            answers = for_each_system("sampling", ready, len(chosen.rows), compute)
            found += sampling(chosen.rows, answers, chosen.name, temperature)
    finish(given["out"], ready, found)


def _drawn(systems: Systems, name: str, cache: Cache, tick: Tick, rows: Sequence[Row], how: Draws) -> list[list[str]]:
    from eul_trainer.evaluation.samples import sample

    return sample(systems.answerer(name), name, rows, how, cache, tick)
