"""From rows to the numbers of a report: means by set and group, for the base model and for each bundle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eul_trainer.metrics.change import unchanged_share
from eul_trainer.metrics.classification import accuracy
from eul_trainer.metrics.perplexity import perplexity
from eul_trainer.metrics.probability import probability
from eul_trainer.metrics.result import Result, RowResult
from eul_trainer.metrics.truth_ratio import near_one, true_better


def summarise(rows: Sequence[RowResult]) -> list[dict[str, Any]]:
    """Return one summary per set, in the order of the rows.

    Args:
        rows: The rows of all sets.

    Returns:
        Per set: name, kind, rows, systems (means by system), and groups with the same.
    """
    summaries = []
    for name in dict.fromkeys(row.set for row in rows):
        mine = [row for row in rows if row.set == name]
        groups = {
            group: [row for row in mine if row.group == group] for group in dict.fromkeys(row.group for row in mine)
        }
        summaries.append(
            {
                "name": name,
                "kind": mine[0].kind,
                "rows": len(mine),
                "systems": means(mine),
                "groups": {group: {"rows": len(part), "systems": means(part)} for group, part in groups.items()},
            }
        )
    return summaries


def means(rows: Sequence[RowResult]) -> dict[str, dict[str, float | None]]:
    """Return what a report shows of rows, by system.

    Args:
        rows: The rows, at least one, of one kind.

    Returns:
        Means over the rows. None stands for what has no value: `unchanged` and `divergence` of the base model, the
        divergence of a twin, the truth ratio where a row has no wrong answers, the accuracy of labels where a row has
        no labels, the loss of masked words where it was not asked for, and a perplexity beyond all numbers. The truth
        ratio is the mean of near_one on what is to be forgotten, and of true_better elsewhere.
    """
    return {
        system: {**_of_results([row.systems[system] for row in rows]), **_others(rows, system)}
        for system in rows[0].systems
    }


def _of_results(results: Sequence[Result]) -> dict[str, float | None]:
    return {
        "loss": _mean([result.loss for result in results]),
        "probability": _mean([probability(result.loss) for result in results]),
        "accuracy": _mean([result.accuracy for result in results]),
        "extraction_strength": _mean([result.extraction_strength for result in results]),
        "rouge_l": _mean([result.rouge_l for result in results]),
        "rouge_l_f1": _mean([result.rouge_l_f1 for result in results]),
        "gibberish": _mean([float(result.gibberish) for result in results]),
        "divergence": _mean_of_all([result.divergence for result in results]),
        "masked_word_loss": _mean_of_all([result.masked_word_loss for result in results]),
        "perplexity": _perplexity(results),
    }


def _others(rows: Sequence[RowResult], system: str) -> dict[str, float | None]:
    first = next(iter(rows[0].systems))
    before, after = ([row.systems[name].answer for row in rows] for name in (first, system))
    score = near_one if rows[0].kind == "forget" else true_better
    ratios = [row.systems[system].truth_ratio for row in rows]
    return {
        "unchanged": None if system == first else round(unchanged_share(before, after), 6),
        "truth_ratio": _mean_of_all([None if ratio is None else score(ratio) for ratio in ratios]),
        "label_accuracy": _label_accuracy(rows, system),
    }


def _label_accuracy(rows: Sequence[RowResult], system: str) -> float | None:
    chosen = [label for row in rows if (label := row.systems[system].label) is not None]
    if len(chosen) < len(rows):
        return None
    return round(accuracy([row.completion for row in rows], chosen), 6)


def _perplexity(results: Sequence[Result]) -> float | None:
    found = perplexity([result.loss for result in results], [result.tokens for result in results])
    return round(found, 6) if math.isfinite(found) else None


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None where one value is missing: a mean over what is left would hide the gap."""
    known = [value for value in values if value is not None]
    return _mean(known) if len(known) == len(values) else None


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)
