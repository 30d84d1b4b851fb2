"""What is measured of a model: pure functions of losses and texts, and the loops that make those."""

from __future__ import annotations

from collections.abc import Sequence

from common.output import mean

from eul_trainer.baselines.evaluated import Evaluated
from eul_trainer.metrics.classification import accuracy, chosen_label
from eul_trainer.metrics.probability import probability as likelihood
from eul_trainer.metrics.rouge import rouge_f1, rouge_l_recall
from eul_trainer.metrics.truth_ratio import geometric, near_one
from eul_trainer.records import Row


def losses(system: Evaluated, rows: Sequence[Row]) -> list[float]:
    """Return the mean loss of each row's answer tokens, nats."""
    return [score.loss for score in system.scores(rows)]


def probability(found: Sequence[float]) -> float:
    """Return the mean of exp(-loss) over rows: TOFU's probability (arXiv:2401.06121), 0 to 1."""
    return mean([likelihood(loss) for loss in found])


def recall(system: Evaluated, rows: Sequence[Row], tokens: int) -> float:
    """Return the mean ROUGE-L recall of greedy answers, cut where the answer is cut."""
    found = system.answers(rows, tokens)
    return mean([rouge_l_recall(row.completion, answer) for row, answer in zip(rows, found, strict=True)])


def truth_ratio(system: Evaluated, rows: Sequence[Row]) -> float | None:
    """Return TOFU's truth ratio on rows that have perturbed answers; None where no row has any.

    Per row R = exp(loss of the paraphrased answer - mean loss of the perturbed ones), and of it min(R, 1/R), as
    `aggregate_eval_stat.py` of TOFU computes it for the forget set: 1 where wrong answers are as likely as the right.
    """
    chosen = [row for row in rows if row.extra.get("perturbed_answers")]
    if not chosen:
        return None
    right = losses(system, [_with(row, row.extra["paraphrased_answer"]) for row in chosen])
    wrong = losses(system, [_with(row, text) for row in chosen for text in row.extra["perturbed_answers"]])
    ratios, first = [], 0
    for row, loss in zip(chosen, right, strict=True):
        count = len(row.extra["perturbed_answers"])
        ratios.append(near_one(geometric(loss, wrong[first : first + count])))
        first += count
    return mean(ratios)


def _with(row: Row, text: str) -> Row:
    return Row(prompt=row.prompt, completion=text, where=row.where)


def label_accuracy(system: Evaluated, rows: Sequence[Row], labels: Sequence[str]) -> float:
    """Return the share of rows whose own label word has the least loss among the labels."""
    asked = [Row(prompt=row.prompt, completion=label, where=row.where) for row in rows for label in labels]
    found = iter(losses(system, asked))
    chosen = [chosen_label({label: next(found) for label in labels}) for _ in rows]
    return accuracy([row.completion for row in rows], chosen)


def summary_scores(system: Evaluated, rows: Sequence[Row], tokens: int) -> dict[str, float]:
    """Return the mean ROUGE scores of greedy summaries."""
    found = [rouge_f1(row.completion, answer) for row, answer in zip(rows, system.answers(rows, tokens), strict=True)]
    return {name: mean([scores[name] for scores in found]) for name in found[0]}
