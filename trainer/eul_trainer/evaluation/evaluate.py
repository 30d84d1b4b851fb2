"""Measuring a model with and without bundles, on what is to be forgotten and on what is to be kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format import Bundle, read_bundle
from eul_trainer.evaluation.answers import MAX_NEW_TOKENS, greedy_answers
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.forward.losses import RowScore, row_losses, row_scores
from eul_trainer.forward.runner import Runner
from eul_trainer.metrics.gibberish import is_gibberish
from eul_trainer.metrics.rouge import rouge_l_recall
from eul_trainer.metrics.summary import Kind, Result, RowResult
from eul_trainer.model.adapter import BundleStack
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import Row

BASE = "base"
"""Name of the system without a bundle."""
Watch = Callable[[int, str], None]
"""Called with the number of finished (set, system) pairs and a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSet:
    """Rows that are measured together."""

    name: str
    """Its name in the report."""
    kind: Kind
    """Whether they are to be forgotten or kept."""
    rows: Sequence[Row]
    """The rows."""


def evaluate(
    model: LoadedModel,
    bundles: Sequence[tuple[str, Bundle]],
    sets: Sequence[EvalSet],
    *,
    tokens: int = MAX_NEW_TOKENS,
    watch: Watch | None = None,
) -> list[RowResult]:
    """Measure the base model and every bundle on every set.

    Args:
        model: The base model; its modules are wrapped in place.
        bundles: Bundles by name.
        sets: The sets.
        tokens: Most tokens of a greedy answer.
        watch: Told about every finished pair.

    Returns:
        One result per row, in the order of the sets.

    Raises:
        InputError: A row is longer than the model can read.
    """
    limit = context_limit(model.network)
    encoded = [encode(model.tokenizer, chosen.rows, limit=limit) for chosen in sets]  # a row too long is found first
    stack = BundleStack(model, bundles)
    found: list[list[list[Result]]] = []
    done = 0
    for chosen, examples in zip(sets, encoded, strict=True):
        found.append([])
        for system in (BASE, *(name for name, _ in bundles)):
            with stack.on(None if system == BASE else system):
                scores = row_scores(Runner(model, examples), examples)
                answers = greedy_answers(model, examples, tokens=tokens)
            with stack.on(None):
                found[-1].append(_results(model, chosen.rows, scores, answers))
            done += 1
            if watch:
                watch(done, f"{chosen.name}, {system}")
    systems = [BASE, *(name for name, _ in bundles)]
    return [
        RowResult(
            set=chosen.name,
            kind=chosen.kind,
            group=row.group,
            prompt=row.prompt,
            completion=row.completion,
            systems={name: results[index] for name, results in zip(systems, found[place], strict=True)},
        )
        for place, chosen in enumerate(sets)
        for index, row in enumerate(chosen.rows)
    ]


def _results(
    model: LoadedModel, rows: Sequence[Row], scores: Sequence[RowScore], answers: Sequence[str]
) -> list[Result]:
    strange = _strangeness(model, rows, answers)
    return [
        Result(
            loss=score.loss,
            accuracy=score.accuracy,
            rouge_l=rouge_l_recall(row.completion, answer),
            gibberish=is_gibberish(answer, strange[index]),
            answer=answer,
        )
        for index, (row, score, answer) in enumerate(zip(rows, scores, answers, strict=True))
    ]


def _strangeness(model: LoadedModel, rows: Sequence[Row], answers: Sequence[str]) -> list[float]:
    """Return each answer's mean loss under the model as it is, nats per token; infinite for an empty one."""
    asked = {
        index: Row(prompt=rows[index].prompt, completion=text) for index, text in enumerate(answers) if text.strip()
    }
    if not asked:
        return [math.inf] * len(answers)
    examples = encode(model.tokenizer, list(asked.values()), limit=context_limit(model.network))
    losses = dict(zip(asked, row_losses(Runner(model, examples), examples), strict=True))
    return [losses.get(index, math.inf) for index in range(len(answers))]


def open_bundles(paths: Sequence[Path], fingerprint: str) -> list[tuple[str, Bundle]]:
    """Read bundles for a base model and name them after their directories.

    Args:
        paths: The bundles' directories.
        fingerprint: Fingerprint of the base model.

    Returns:
        Bundles by name.

    Raises:
        InputError: Two directories have the same name.
        BundleMismatchError: A bundle was made for another base model.
    """
    names = [path.resolve().name for path in paths]
    for name in names:
        if names.count(name) > 1 or name == BASE:
            raise InputError(f"--bundle: two systems are called {name!r}; rename a directory")
    return [(name, read_bundle(path, fingerprint)) for name, path in zip(names, paths, strict=True)]
