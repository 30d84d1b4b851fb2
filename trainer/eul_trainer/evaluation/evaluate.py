"""Measuring a model with and without bundles, on what is to be forgotten and on what is to be kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eul_trainer.evaluation.answers import MAX_NEW_TOKENS, answer
from eul_trainer.evaluation.cache import Cache
from eul_trainer.evaluation.scoring import score
from eul_trainer.evaluation.systems import BASE, Systems
from eul_trainer.evaluation.view import View
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.metrics.exact_memorisation import exact_memorisation
from eul_trainer.metrics.extraction_strength import extraction_strength
from eul_trainer.metrics.gibberish import is_gibberish
from eul_trainer.metrics.rouge import rouge_f1, rouge_l_recall
from eul_trainer.metrics.summary import Kind, Result, RowResult
from eul_trainer.records import Row

Watch = Callable[[int, str], None]
"""Called with the number of finished results and a few words; `results` says how many there will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSet:
    """Rows that are measured together."""

    name: str
    """Its name in the report."""
    kind: Kind
    """Whether they are to be forgotten or kept."""
    rows: Sequence[Row]
    """The rows."""


def results(systems: Systems, sets: Sequence[EvalSet]) -> int:
    """Return how many results an evaluation has: for each row and system a score, an answer, and its score."""
    return 3 * len(systems.revisions) * sum(len(chosen.rows) for chosen in sets)


def evaluate(
    systems: Systems,
    sets: Sequence[EvalSet],
    cache: Cache,
    *,
    tokens: int = MAX_NEW_TOKENS,
    watch: Watch | None = None,
) -> list[RowResult]:
    """Measure the base model and every bundle on every set.

    Args:
        systems: The base model and the bundles.
        sets: The sets.
        cache: Where single results are kept as they come.
        tokens: Most tokens of a greedy answer.
        watch: Told about every batch.

    Returns:
        One result per row, in the order of the sets.

    Raises:
        InputError: A row is longer than the model can read.
    """
    model, names = systems.model, list(systems.revisions)
    places = [(chosen, row) for chosen in sets for row in chosen.rows]
    rows = [row for _, row in places]
    encode(model.tokenizer, rows, limit=context_limit(model.network))  # a row too long is found first
    done = 0

    def tick(more: int, system: str) -> None:
        nonlocal done
        done += more
        if watch and more:
            watch(done, system)

    views = score(systems, names, rows, cache, tick)
    answers = answer(systems, names, rows, tokens, cache, tick)
    strange = {name: _strangeness(systems, rows, answers[name], cache, tick) for name in names}
    return [
        RowResult(
            set=chosen.name,
            kind=chosen.kind,
            group=row.group,
            prompt=row.prompt,
            completion=row.completion,
            systems={
                name: _result(row, views[name][index], answers[name][index], strange[name][index]) for name in names
            },
        )
        for index, (chosen, row) in enumerate(places)
    ]


def _result(row: Row, view: View, answer: str, strangeness: float) -> Result:
    return Result(
        loss=view.loss,
        accuracy=exact_memorisation(view.first),
        extraction_strength=extraction_strength(view.first),
        divergence=view.divergence,
        rouge_l=rouge_l_recall(row.completion, answer),
        rouge_l_f1=rouge_f1(row.completion, answer)["rougeL"],
        gibberish=is_gibberish(answer, strangeness),
        answer=answer,
    )


def _strangeness(
    systems: Systems, rows: Sequence[Row], answers: Sequence[str], cache: Cache, tick: Callable[[int, str], None]
) -> list[float]:
    """Return each answer's mean loss under the model as it is, nats per token; infinite for an empty one."""
    asked = {
        index: Row(prompt=rows[index].prompt, completion=text) for index, text in enumerate(answers) if text.strip()
    }
    tick(len(answers) - len(asked), BASE)
    views = score(systems, [BASE], list(asked.values()), cache, tick)[BASE]
    losses = {index: view.loss for index, view in zip(asked, views, strict=True)}
    return [losses.get(index, math.inf) for index in range(len(answers))]
