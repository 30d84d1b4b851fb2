"""`eul-train attack relearning`: training on a few rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_trainer.allowed import check
from eul_trainer.cli import options
from eul_trainer.cli.attack.shared import attack_options, finish, read_asked
from eul_trainer.cli.evaluating import fresh_systems
from eul_trainer.cli.progress import progress

if TYPE_CHECKING:
    from eul_trainer.attacks.result import AttackResult


@click.command(name="relearning")
@attack_options
@click.option(
    "--known",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 5),
    show_default=True,
    metavar="N",
    help="Forgotten rows that the attacker trains on, the others are asked; may be given more than once.",
)
@click.option(
    "--related",
    type=options.PATH,
    metavar="FILE",
    help="JSON lines to train on in their place; then all forgotten rows are asked.",
)
@click.option("--learning-rate", type=float, default=5e-4, show_default=True, help="Rate of AdamW.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of which rows are known.")
def command(
    known: tuple[int, ...],
    related: Path | None,
    learning_rate: float,
    seed: int,
    **given: Any,  # noqa: ANN401  # the shared options
) -> None:
    """Train on a few forgotten or related rows with the bundle on and frozen, up to 20 steps, and ask the others.

    \b
    Example:
      eul-train attack relearning --model base --bundle fused --forget alice.jsonl --twin twin --known 5 --out attacked
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.attacks.relearning import RelearnSettings, draw_known, relearn, relearn_results
    from eul_trainer.records import Fields, read_rows

    check(0 < learning_rate <= 1, "learning-rate", learning_rate, "above 0 and at most 1")
    asked, sets = read_asked(**given)
    settings = RelearnSettings(learning_rate=learning_rate, seed=seed)
    if related:
        lesson = read_rows(related, Fields(prompt=given["prompt_field"], completion=given["completion_field"]))
        plans = [(chosen.name, lesson, list(chosen.rows)) for chosen in sets]
    else:
        plans = [(chosen.name, *draw_known(chosen.rows, count, seed)) for chosen in sets for count in known]
    fresh = fresh_systems(asked)
    found: list[AttackResult] = []
    with progress("relearning", len(plans) * len(fresh), asked.quiet) as advance:
        for number, (chosen_name, lesson, exam) in enumerate(plans):
            curves = {}
            for place, (name, (system, load)) in enumerate(fresh.items(), 1):
                curves[name] = dict(relearn(load(), system, lesson, exam, settings))
                advance(number * len(fresh) + place, name)
            found += relearn_results(curves, chosen_name, len(lesson), len(exam))
    finish(given["out"], asked, found)
