"""`eul-train attack choosing`: what log-probabilities give away."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from eul_trainer.cli.attack.shared import attack_options, finish, read_asked
from eul_trainer.cli.evaluating import for_each_system

if TYPE_CHECKING:
    from eul_trainer.attacks.result import AttackResult
    from eul_trainer.evaluation.cache import Cache
    from eul_trainer.evaluation.scoring import Tick
    from eul_trainer.evaluation.systems import Systems
    from eul_trainer.evaluation.view import View
    from eul_trainer.records import Row


@click.command(name="choosing")
@attack_options
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of which rows give decoys.")
def command(seed: int, **given: Any) -> None:  # noqa: ANN401  # the shared options
    """Choose between the true answer and decoys by log-probabilities, and look for its tokens among the likeliest.

    Decoys are a row's own wrong answers (perturbed_answers), or else those of three other rows. Transformers computes
    the log-probabilities, and no server is asked: there they are a right that a policy must grant.

    \b
    Example:
      eul-train attack choosing --model base --bundle fused --forget alice.heldout.jsonl --twin twin --out attacked
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.attacks.choosing import choosing, decoys

    asked, sets = read_asked(**given)
    found: list[AttackResult] = []
    for chosen in sets:
        wrong = decoys(chosen.rows, seed=seed)
        rows = [*chosen.rows, *(row for group in wrong for row in group)]
        views = for_each_system("choosing", asked, len(rows), partial(_scored, rows=rows, whole=len(chosen.rows)))
        found += choosing(chosen.rows, wrong, views, chosen.name)
    finish(given["out"], asked, found)


def _scored(systems: Systems, name: str, cache: Cache, tick: Tick, rows: list[Row], whole: int) -> list[View]:
    from eul_trainer.evaluation.scoring import score

    return score(systems, [name], rows, cache, tick, whole=whole)[name]
