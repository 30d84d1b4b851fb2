"""One row under one system: every measure of it, from its view, its companions' views and the greedy answer."""

from __future__ import annotations

from eul_trainer.evaluation.companions import Beside, labelled
from eul_trainer.evaluation.ratios import ratios
from eul_trainer.evaluation.view import View
from eul_trainer.metrics.classification import chosen_label
from eul_trainer.metrics.exact_memorisation import exact_memorisation
from eul_trainer.metrics.extraction_strength import extraction_strength
from eul_trainer.metrics.gibberish import is_gibberish
from eul_trainer.metrics.result import Result
from eul_trainer.metrics.rouge import rouge_f1, rouge_l_recall
from eul_trainer.records import Row


def judged(row: Row, view: View, beside: Beside, answer: str, strangeness: float) -> Result:
    """Return the measures of a row.

    Args:
        row: The row.
        view: What the system makes of its answer.
        beside: What the system makes of its companions.
        answer: The system's greedy answer.
        strangeness: Mean loss of that answer under the base model, nats a token.

    Returns:
        The measures.
    """
    found = ratios(beside.variants)
    return Result(
        loss=view.loss,
        tokens=len(view.logprobs),
        accuracy=exact_memorisation(view.first),
        extraction_strength=extraction_strength(view.first),
        divergence=view.divergence,
        rouge_l=rouge_l_recall(row.completion, answer),
        rouge_l_f1=rouge_f1(row.completion, answer)["rougeL"],
        gibberish=is_gibberish(answer, strangeness),
        answer=answer,
        truth_ratio=found["geometric"],
        truth_ratio_arithmetic=found["arithmetic"],
        label=_label(row, beside),
        masked_word_loss=beside.masked[0].loss if beside.masked else None,
    )


def _label(row: Row, beside: Beside) -> str | None:
    if not beside.labels:
        return None
    return chosen_label({label.completion: view.loss for label, view in zip(labelled(row), beside.labels, strict=True)})
