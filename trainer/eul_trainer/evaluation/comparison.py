"""What single rows cannot say: systems beside a twin, forgotten rows beside unseen ones, the utility of what is kept.

Whatever has no value is a gap with its reason, never a zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from eul_trainer.evaluation.evaluate import Evaluation
from eul_trainer.evaluation.roles import TWIN
from eul_trainer.evaluation.view import View
from eul_trainer.metrics.forget_quality import forget_quality
from eul_trainer.metrics.membership import scores
from eul_trainer.metrics.membership.auc import area
from eul_trainer.metrics.membership.classifier import separate
from eul_trainer.metrics.membership.privleak import privleak
from eul_trainer.metrics.membership.tokens import TokenView
from eul_trainer.metrics.model_utility import SetUtility, model_utility
from eul_trainer.metrics.result import RowResult
from eul_trainer.metrics.summary import means
from eul_trainer.metrics.twin_distance import twin_distance
from eul_trainer.metrics.undefined import UndefinedError

SHARES = ("probability", "accuracy", "extraction_strength", "rouge_l", "rouge_l_f1", "truth_ratio")
"""Measures between 0 and 1, of which the distance to the twin is the mean."""
ATTACKS = {"loss": scores.loss, "zlib": scores.zlib, "min_k": scores.min_k, "min_k_plus": scores.min_k_plus}
"""Attacks that see one row under one model."""
CLASSIFIERS = {"unseen": "membership_classifier", "retain": "paper_classifier"}
"""What the classifier on final representations is called, by the kind of rows that forgotten ones are told from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Comparisons, and what could not be compared."""

    found: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Plain JSON by system, set and measure."""
    gaps: list[dict[str, str]] = field(default_factory=list)
    """Per gap: system, set, measure, why."""

    def put(self, system: str, chosen: str, measure: str, compute: Callable[..., Any], *given: Any) -> None:  # noqa: ANN401
        """Note what a function of (system, *given) returns, or why it has no value."""
        try:
            self.found.setdefault(system, {}).setdefault(chosen, {})[measure] = compute(system, *given)
        except UndefinedError as error:
            self.gaps.append({"system": system, "set": chosen, "measure": measure, "why": str(error)})


def compare(evaluation: Evaluation) -> Comparison:
    """Compare every system with the twin, and forgotten rows with unseen ones.

    Args:
        evaluation: What was measured.

    Returns:
        The comparisons.
    """
    found = Comparison()
    places = {
        name: [place for place, row in enumerate(evaluation.rows) if row.set == name]
        for name in dict.fromkeys(row.set for row in evaluation.rows)
    }
    averages = {name: means([evaluation.rows[place] for place in mine]) for name, mine in places.items()}
    for system in evaluation.views:
        beside_twin = TWIN in evaluation.views and system != TWIN
        for name, mine in places.items():
            forgotten = evaluation.rows[mine[0]].kind == "forget"
            if beside_twin:
                found.put(system, name, "twin_distance", _distance, averages[name])
            if beside_twin and forgotten:
                found.put(system, name, "forget_quality", _quality, [evaluation.rows[place] for place in mine])
            for attack in (*ATTACKS, "reference", "recall") if forgotten else ():
                found.put(system, name, f"membership_{attack}", _attack, evaluation, mine, attack)
            for other in ("unseen", "retain") if forgotten else ():
                found.put(system, name, CLASSIFIERS[other], _classifier, evaluation, mine, other)
        found.put(system, "retain", "model_utility", _utility, evaluation.rows)
    return found


def _distance(system: str, averages: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    sides = [{name: value for name in SHARES if (value := averages[side][name]) is not None} for side in (system, TWIN)]
    return asdict(twin_distance(*sides))


def _quality(system: str, rows: Sequence[RowResult]) -> dict[str, Any]:
    sides = [[value for row in rows if (value := row.systems[side].truth_ratio) is not None] for side in (system, TWIN)]
    return asdict(forget_quality(*sides))


def _classifier(system: str, evaluation: Evaluation, places: Sequence[int], other: str) -> dict[str, Any]:
    """Return how well a classifier on final representations tells forgotten rows from others of a kind."""
    import numpy as np

    others = [place for place, row in enumerate(evaluation.rows) if row.kind == other]
    views = evaluation.views[system]
    forgotten, rest = (np.array([views[place].representation for place in chosen]) for chosen in (places, others))
    found = separate(forgotten, rest)
    return {"accuracy": found.accuracy, **asdict(found.area), "privleak": None}


def _attack(system: str, evaluation: Evaluation, places: Sequence[int], attack: str) -> dict[str, Any]:
    """Return the area of an attack on forgotten against unseen rows, and PrivLeak where there is a twin."""
    unseen = [place for place, row in enumerate(evaluation.rows) if row.kind == "unseen"]
    if attack == "recall":
        behind = evaluation.after_unseen.get(system, {})
        if not behind:
            raise UndefinedError(
                "membership by ReCaLL: no rows stand behind unseen ones; give at least 2 unseen rows that leave room"
            )
        unseen = [place for place in unseen if place in behind]
    found = area(_scores(evaluation, system, places, attack), _scores(evaluation, system, unseen, attack))
    leak = None
    if TWIN in evaluation.views and system != TWIN and attack != "reference":
        twin = area(_scores(evaluation, TWIN, places, attack), _scores(evaluation, TWIN, unseen, attack))
        leak = privleak(found.value, twin.value) if twin.value < 1 else None
    return {**asdict(found), "privleak": leak}


def _scores(evaluation: Evaluation, system: str, places: Sequence[int], attack: str) -> list[float]:
    if attack == "recall":
        behind = evaluation.after_unseen[system]
        return [scores.recall(_tokens(evaluation, system, place), _seen(evaluation, place, behind)) for place in places]
    if attack != "reference":
        return [ATTACKS[attack](_tokens(evaluation, system, place)) for place in places]
    if TWIN not in evaluation.views or system == TWIN:
        raise UndefinedError("membership by a reference: there is no model that never saw the rows; give --twin")
    return [scores.reference(_tokens(evaluation, system, place), _tokens(evaluation, TWIN, place)) for place in places]


def _tokens(evaluation: Evaluation, system: str, place: int) -> TokenView:
    return _seen(evaluation, place, evaluation.views[system])


def _seen(evaluation: Evaluation, place: int, views: Mapping[int, View] | Sequence[View]) -> TokenView:
    view = views[place]
    return TokenView(
        text=evaluation.rows[place].completion,
        logprobs=view.logprobs,
        means=view.means,
        deviations=view.deviations,
    )


def _utility(system: str, rows: Sequence[RowResult]) -> float:
    """Return model utility over the groups of what is kept: TOFU's three sets, where groups are named after them."""
    kept = [row for row in rows if row.kind == "retain"]
    parts = []
    for group in dict.fromkeys(row.group for row in kept):
        found = means([row for row in kept if row.group == group])[system]
        if found["truth_ratio"] is None:
            raise UndefinedError(
                f"model utility: rows of group {group!r} lack paraphrased and wrong answers; give rows that have both"
            )
        parts.append(
            SetUtility(
                probability=found["probability"] or 0.0,
                rouge_l=found["rouge_l"] or 0.0,
                truth_ratio=found["truth_ratio"],
            )
        )
    return model_utility(parts)
