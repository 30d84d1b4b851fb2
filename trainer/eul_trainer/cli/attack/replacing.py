"""`eul-train attack replacing`: no bundle, or another one, in the place of the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eul_trainer.cli import options
from eul_trainer.cli.attack.shared import attack_options, finish, read_asked
from eul_trainer.cli.evaluating import run_evaluation


@click.command(name="replacing")
@attack_options
@click.option(
    "--other",
    "others",
    multiple=True,
    type=options.PATH,
    metavar="DIR",
    help="Bundle that takes its place, such as an earlier revision or another tenant's; may be given more than once.",
)
def command(bundles: tuple[Path, ...], others: tuple[Path, ...], **given: Any) -> None:  # noqa: ANN401  # shared options
    """Switch the bundle off, or put another in its place, and ask the plain question.

    Switched off, everything comes back, whatever the bundle: a layer hides, it does not erase. This shows what the
    policy has to deny.

    \b
    Examples:
      eul-train attack replacing --model base --bundle fused --forget alice.heldout.jsonl --twin twin --out replaced
      eul-train attack replacing --model base --bundle fused --other layers/bob --forget alice=alice.heldout.jsonl \\
          --twin twin --out replaced
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.attacks.replacing import results

    asked, sets = read_asked(bundles=(*bundles, *others), **given)
    names = [name for name, _ in asked.bundles]
    evaluation, _ = run_evaluation("attack", asked, sets)
    found = results(evaluation, sets, names[: len(bundles)], names[len(bundles) :])
    finish(given["out"], asked, found)
