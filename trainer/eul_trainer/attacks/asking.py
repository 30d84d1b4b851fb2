"""Running the attacks that a caller can type: every way of asking is a set of its own in one evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from eul_trainer.attacks.prompts import PromptAttack
from eul_trainer.attacks.result import AttackResult, set_results
from eul_trainer.evaluation.evaluate import EvalSet, Evaluation
from eul_trainer.records import Row

PLAIN = "plain"
"""The question as it is."""


def asked_sets(sets: Sequence[EvalSet], attacks: Sequence[PromptAttack]) -> list[EvalSet]:
    """Return the sets as they are, and once more for each attack that has rows left.

    Args:
        sets: Sets of forgotten rows.
        attacks: The attacks.

    Returns:
        Sets whose names are those of set and attack.
    """
    return [
        EvalSet(name=_name(chosen.name, name), kind="forget", rows=rows)
        for chosen in sets
        for name, rows in [(PLAIN, list(chosen.rows)), *_asked(chosen, attacks)]
    ]


def _asked(chosen: EvalSet, attacks: Sequence[PromptAttack]) -> Iterator[tuple[str, list[Row]]]:
    for attack in attacks:
        if rows := [row for row in attack.make(chosen.rows) if row is not None]:
            yield attack.name, rows


def results(evaluation: Evaluation, sets: Sequence[EvalSet], attacks: Sequence[PromptAttack]) -> list[AttackResult]:
    """Return what each attack brought back.

    Args:
        evaluation: The evaluation of `asked_sets`.
        sets: Sets of forgotten rows.
        attacks: The attacks.

    Returns:
        One result per set and attack, the plain question first.
    """
    found = []
    for chosen in sets:
        for name, budget in [(PLAIN, 0), *((attack.name, attack.budget) for attack in attacks)]:
            asked = set_results(evaluation, _name(chosen.name, name), "prompts", name, budget)
            found += [replace(result, set=chosen.name) for result in asked]
    return found


def _name(chosen: str, attack: str) -> str:
    return f"{chosen}, {attack}"
