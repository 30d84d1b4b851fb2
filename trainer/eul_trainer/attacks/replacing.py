"""The bundle switched off, or another in its place: what a caller gets who may name another adapter than the one meant.

Switched off, everything comes back, always: a layer hides, and the base model never forgot. Under another bundle all
comes back that this one does not hide. Only a policy that denies both stands in the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from eul_trainer.attacks.asking import PLAIN
from eul_trainer.attacks.result import AttackResult, set_results
from eul_trainer.evaluation.evaluate import EvalSet, Evaluation
from eul_trainer.evaluation.roles import BASE, TWIN

OFF = "off"
"""No bundle at all."""


def results(
    evaluation: Evaluation, sets: Sequence[EvalSet], attacked: Sequence[str], others: Sequence[str]
) -> list[AttackResult]:
    """Return what is known in place of each attacked bundle.

    Args:
        evaluation: The evaluation of the sets, under all bundles.
        sets: Sets of forgotten rows.
        attacked: Names of the bundles that should have answered.
        others: Names of those that take their place.

    Returns:
        Per set the plain question, with the bundles off, and with each of the others instead. What stands under a
        bundle's name are the measures of what answers in its place. The budget is the adapters that a caller must be
        allowed to name besides their own.
    """
    found = []
    for chosen in sets:
        for plain in set_results(evaluation, chosen.name, "replacing", PLAIN, 0):
            found += [_answered(plain, name, places) for name, places in _places(attacked, others)]
    return found


def _places(attacked: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Return each way's name, and who answers in place of each attacked bundle."""
    yield PLAIN, {name: name for name in attacked}
    yield OFF, dict.fromkeys(attacked, BASE)
    for other in others:
        yield f"{other} instead", dict.fromkeys(attacked, other)


def _answered(plain: AttackResult, name: str, places: Mapping[str, str]) -> AttackResult:
    shown = [system for system in plain.systems if system in (BASE, TWIN) or system in places]
    systems = {system: plain.systems[places.get(system, system)] for system in shown}
    return replace(plain, name=name, budget=float(name != PLAIN), systems=systems)
