"""`eul-train attack rounding`: weights in few bits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import click

from eul_trainer.cli.attack.shared import attack_options, finish, read_asked
from eul_trainer.cli.evaluating import run_evaluation


@click.command(name="rounding")
@attack_options
def command(**given: Any) -> None:  # noqa: ANN401  # the shared options
    """Round the weights of the base model, of the bundle and of both to 8 and 4 bits.

    \b
    Example:
      eul-train attack rounding --model base --bundle fused --forget alice.heldout.jsonl --twin twin --out attacked
    """  # noqa: D301  # click reads the backspace as: leave the lines as they are
    from eul_trainer.attacks.result import set_results
    from eul_trainer.attacks.rounding import BITS, PARTS, round_network

    asked, sets = read_asked(**given)
    evaluation, _ = run_evaluation("plain", asked, sets)
    found = [result for chosen in sets for result in set_results(evaluation, chosen.name, "rounding", "plain", 32)]
    for name, part, bits in [(f"{part}-{bits}", part, bits) for part in PARTS for bits in BITS]:
        change = replace(asked, change=partial(round_network, bits=bits, part=part), note=f"rounded {name}")
        evaluation, _ = run_evaluation(name, change, sets)
        found += [result for chosen in sets for result in set_results(evaluation, chosen.name, "rounding", name, bits)]
    finish(given["out"], asked, found)
