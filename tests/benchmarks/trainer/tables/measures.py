"""What is measured of a model: pure functions of losses and texts, and the loops that make those."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from common.output import mean

from eul_trainer.answers import greedy_answers
from eul_trainer.encoding import context_limit, encode
from eul_trainer.forward import Runner
from eul_trainer.losses import row_losses
from eul_trainer.metrics.rouge import common_length, rouge_l_recall, words
from eul_trainer.model import LoadedModel
from eul_trainer.records import Row


def losses(model: LoadedModel, rows: Sequence[Row]) -> list[float]:
    """Return the mean loss of each row's answer tokens, nats."""
    examples = encode(model.tokenizer, rows, limit=context_limit(model.network))
    return row_losses(Runner(model, examples), examples)


def answers(model: LoadedModel, rows: Sequence[Row], tokens: int) -> list[str]:
    """Return greedy answers."""
    examples = encode(model.tokenizer, rows, limit=context_limit(model.network))
    return greedy_answers(model, examples, tokens=tokens)


def probability(found: Sequence[float]) -> float:
    """Return the mean of exp(-loss) over rows: TOFU's probability (arXiv:2401.06121), 0 to 1."""
    return mean([math.exp(-loss) for loss in found])


def recall(model: LoadedModel, rows: Sequence[Row], tokens: int) -> float:
    """Return the mean ROUGE-L recall of greedy answers, cut where the answer is cut."""
    found = answers(model, rows, tokens)
    return mean([rouge_l_recall(row.completion, answer) for row, answer in zip(rows, found, strict=True)])


def truth_ratio(model: LoadedModel, rows: Sequence[Row]) -> float | None:
    """Return TOFU's truth ratio on rows that have perturbed answers; None where no row has any.

    Per row R = exp(loss of the paraphrased answer - mean loss of the perturbed ones), and of it min(R, 1/R), as
    `aggregate_eval_stat.py` of TOFU computes it for the forget set: 1 where wrong answers are as likely as the right.
    """
    chosen = [row for row in rows if row.extra.get("perturbed_answers")]
    if not chosen:
        return None
    right = losses(model, [_with(row, row.extra["paraphrased_answer"]) for row in chosen])
    wrong = losses(model, [_with(row, text) for row in chosen for text in row.extra["perturbed_answers"]])
    ratios, first = [], 0
    for row, loss in zip(chosen, right, strict=True):
        count = len(row.extra["perturbed_answers"])
        ratio = math.exp(loss - mean(wrong[first : first + count]))
        ratios.append(min(ratio, 1 / max(ratio, 1e-12)))
        first += count
    return mean(ratios)


def _with(row: Row, text: str) -> Row:
    return Row(prompt=row.prompt, completion=text, where=row.where)


def label_accuracy(model: LoadedModel, rows: Sequence[Row], labels: Sequence[str]) -> float:
    """Return the share of rows whose own label word has the least loss among the labels."""
    asked = [Row(prompt=row.prompt, completion=label, where=row.where) for row in rows for label in labels]
    found = losses(model, asked)
    hits = 0
    for index, row in enumerate(rows):
        mine = found[index * len(labels) : (index + 1) * len(labels)]
        hits += labels[min(range(len(labels)), key=mine.__getitem__)] == row.completion
    return hits / len(rows)


def rouge_scores(reference: str, answer: str) -> dict[str, float]:
    """Return ROUGE-1, ROUGE-2 and ROUGE-L as F1 (Lin 2004), 0 to 1, on lower-case words without stemming."""
    expected, found = words(reference), words(answer)
    return {
        "rouge1": _f1(_shared(expected, found, 1), len(expected), len(found)),
        "rouge2": _f1(_shared(expected, found, 2), len(expected) - 1, len(found) - 1),
        "rougeL": _f1(common_length(expected, found), len(expected), len(found)),
    }


def _shared(first: Sequence[str], second: Sequence[str], size: int) -> int:
    def grams(text: Sequence[str]) -> Counter[tuple[str, ...]]:
        return Counter(tuple(text[start : start + size]) for start in range(len(text) - size + 1))

    return sum((grams(first) & grams(second)).values())


def _f1(shared: int, expected: int, found: int) -> float:
    return 2 * shared / (expected + found) if shared else 0.0


def summary_scores(model: LoadedModel, rows: Sequence[Row], tokens: int) -> dict[str, float]:
    """Return the mean ROUGE scores of greedy summaries."""
    found = [
        rouge_scores(row.completion, answer) for row, answer in zip(rows, answers(model, rows, tokens), strict=True)
    ]
    return {name: mean([scores[name] for scores in found]) for name in found[0]}
