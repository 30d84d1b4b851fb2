"""What log-probabilities give away: a choice between the true answer and decoys, and true tokens among the likeliest.

A caller who sees log-probabilities, or may constrain an answer to some choices, needs no answer in words.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from eul_trainer.attacks.result import AttackResult
from eul_trainer.evaluation.ratios import PERTURBED
from eul_trainer.evaluation.view import View
from eul_trainer.records import Row, plain

DECOYS = 3
"""Decoys of a row that has no wrong answers of its own."""
TOP = (1, 5, 20)
"""How many of the likeliest tokens a caller sees; vLLM and OpenAI's interface show up to 20."""


def decoys(rows: Sequence[Row], count: int = DECOYS, seed: int = 0) -> list[list[Row]]:
    """Return each row with wrong answers: its own where it has some, else those of other rows.

    Args:
        rows: The forgotten rows.
        count: Most decoys of a row that has none of its own.
        seed: Seed of which other rows.

    Returns:
        Per row, rows with its question; empty where no other row has another answer.
    """
    found = []
    for row in rows:
        others = list(dict.fromkeys(o.completion for o in rows if plain(o.completion) != plain(row.completion)))
        chance = random.Random(f"{seed}:{row.prompt}")  # noqa: S311  # chance, not secrecy
        texts = row.extra.get(PERTURBED) or chance.sample(others, min(count, len(others)))
        found.append([Row(prompt=row.prompt, completion=text, where=row.where) for text in texts])
    return found


def choosing(
    rows: Sequence[Row], wrong: Sequence[Sequence[Row]], views: Mapping[str, Sequence[View]], chosen: str
) -> list[AttackResult]:
    """Return what the log-probabilities of one set give away.

    Args:
        rows: The forgotten rows.
        wrong: Their decoys, of `decoys`.
        views: Per system, the views of all rows and then of all decoys, in their order.
        chosen: The set's name.

    Returns:
        The choice (its budget is the decoys in the mean, and `chance` what guessing gives), then the tokens.
    """
    asked = [index for index, group in enumerate(wrong) if group]
    found = []
    if asked:
        count = sum(len(wrong[index]) for index in asked) / len(asked)
        chance = sum(1 / (1 + len(wrong[index])) for index in asked) / len(asked)
        systems = {name: {"chosen": _chosen(part, wrong), "chance": round(chance, 6)} for name, part in views.items()}
        found = [
            AttackResult(kind="choosing", name="choice", budget=count, set=chosen, rows=len(asked), systems=systems)
        ]
    for top in TOP:
        systems = {name: {"seen": _seen(part[: len(rows)], top)} for name, part in views.items()}
        found.append(
            AttackResult(kind="choosing", name=f"top-{top}", budget=top, set=chosen, rows=len(rows), systems=systems)
        )
    return found


def _chosen(views: Sequence[View], wrong: Sequence[Sequence[Row]]) -> float:
    """Return the share of rows whose true answer is likelier a token than each decoy."""
    rest = iter(views[len(wrong) :])
    hits = [
        view.loss < min(next(rest).loss for _ in group)
        for view, group in zip(views[: len(wrong)], wrong, strict=True)
        if group
    ]
    return round(sum(hits) / len(hits), 6)


def _seen(views: Sequence[View], top: int) -> float:
    """Return the share of answer tokens that are among the likeliest, every token with the same weight."""
    ranks = [rank for view in views for rank in view.ranks]
    return round(sum(rank < top for rank in ranks) / len(ranks), 6)
