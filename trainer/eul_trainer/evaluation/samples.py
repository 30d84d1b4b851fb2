"""Answers drawn by chance, several to a row, wherever they come from: what is cached is not asked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from eul_trainer.evaluation.answerer import Answerer, Draws
from eul_trainer.evaluation.answers import prompt_key
from eul_trainer.evaluation.cache import Cache
from eul_trainer.evaluation.scoring import Tick
from eul_trainer.records import Row


def sample(who: Answerer, name: str, rows: Sequence[Row], draws: Draws, cache: Cache, tick: Tick) -> list[list[str]]:
    """Draw several answers to each row's prompt.

    Args:
        who: Answers.
        name: The system that it answers as.
        rows: The rows; equal prompts are asked once.
        draws: How many, and how.
        cache: Where answers are kept.
        tick: Told about every row.

    Returns:
        Per row, the answers in the order in which they were drawn.
    """
    keys = [prompt_key(row) for row in rows]
    kept = cache.of(who.identity, "sample", **asdict(draws))
    due = {key: row for key, row in zip(keys, rows, strict=True) if key not in kept}
    tick(sum(key not in due for key in keys), name)
    wanted = list(due)
    seeds = [int(key[-8:], 16) ^ draws.seed for key in wanted]
    for index, texts in who.drawn(list(due.values()), seeds, draws):
        kept.add({wanted[index]: texts})
        tick(keys.count(wanted[index]), name)
    return [kept[key] for key in keys]
