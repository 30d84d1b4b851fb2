"""Attacks as pages show them: a line for each measure, and curves of those that differ in their budget alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eul_trainer.attacks.result import KNOWING
from eul_trainer.evaluation.roles import BASE, TWIN

DRAWN = ("rouge_l", "chosen", "seen", "probability")
"""Measures of an attack by how much they tell a reader: the first that it has is drawn."""
PLAIN = "plain"
"""The question as it is: where the curves of its kind begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One attack on one set, by its budget."""

    set: str
    """Name of the set."""
    name: str
    """Kind and name of the attack, with N for the budget."""
    measure: str
    """What is measured; higher is more known."""
    budgets: tuple[float, ...]
    """Budgets in order, at least one."""
    systems: Mapping[str, tuple[float, ...]]
    """The measure at each of them, by system."""


def attack_lines(attacks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line for each attack and measure that is higher for those who know.

    Args:
        attacks: The `attacks` of every `attack.json`.

    Returns:
        The attack with `measure`, its values under `systems`, and under `recovered` what was brought back, in words.
    """
    found = []
    for attack in attacks:
        for measure in KNOWING:
            systems = _values(attack, measure)
            if systems:
                back = {name: shares.get(measure) for name, shares in attack["recovered"].items()}
                told = [
                    f"{name} {share:.2f}"
                    for name, share in back.items()
                    if share is not None and name not in (BASE, TWIN)
                ]
                found.append({**attack, "measure": measure, "systems": systems, "recovered": ", ".join(told)})
    return found


def curves(attacks: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Return attacks by their budget; one that stands alone is a curve of one point.

    Args:
        attacks: The `attacks` of every `attack.json`.

    Returns:
        The curves, set by set.
    """
    families: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for attack in attacks:
        families.setdefault((attack["set"], attack["kind"], _family(attack)), []).append(attack)
    found = []
    for (name, kind, family), members in families.items():
        alone = len({member["budget"] for member in members}) == 1
        start = [] if alone or family == PLAIN else families.get((name, kind, PLAIN), [])
        if curve := _curve(name, f"{kind}: {family}", [*start, *members]):
            found.append(curve)
    return sorted(found, key=lambda curve: list(dict.fromkeys(part["set"] for part in attacks)).index(curve.set))


def _family(attack: Mapping[str, Any]) -> str:
    """Return the attack's name with N for its budget."""
    return re.sub(r"(?<=^best-of-)\d+|(?<=-)\d+$", "N", attack["name"], count=1)


def _curve(name: str, title: str, members: Sequence[Mapping[str, Any]]) -> Curve | None:
    measure = next((measure for measure in DRAWN if all(_values(member, measure) for member in members)), None)
    if measure is None:
        return None
    members = sorted(members, key=lambda member: float(member["budget"]))
    values = [_values(member, measure) for member in members]
    return Curve(
        set=name,
        name=title,
        measure=measure,
        budgets=tuple(member["budget"] for member in members),
        systems={
            system: tuple(value[system] for value in values)
            for system in values[0]
            if all(system in value for value in values)
        },
    )


def _values(attack: Mapping[str, Any], measure: str) -> dict[str, float]:
    return {name: numbers[measure] for name, numbers in attack["systems"].items() if numbers.get(measure) is not None}
