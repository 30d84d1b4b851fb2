"""Greedy answers of systems, wherever they come from: what is cached is not asked again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from eul_trainer.evaluation.answerer import Answerer
from eul_trainer.evaluation.cache import Cache
from eul_trainer.evaluation.scoring import Tick
from eul_trainer.records import Row, digest_rows

MAX_NEW_TOKENS = 32


def answer(who: Answerer, name: str, rows: Sequence[Row], tokens: int, cache: Cache, tick: Tick) -> list[str]:
    """Answer rows' prompts greedily.

    Args:
        who: Answers.
        name: The system that it answers as.
        rows: The rows; equal prompts are asked once.
        tokens: Most tokens per answer.
        cache: Where answers are kept.
        tick: Told about every batch.

    Returns:
        One answer a row, in the order of the rows.
    """
    keys = [prompt_key(row) for row in rows]
    kept = cache.of(who.identity, "answer", tokens=tokens)
    due = {key: row for key, row in zip(keys, rows, strict=True) if key not in kept}
    tick(sum(key not in due for key in keys), name)
    mine = cache.share(due)
    times, wanted = Counter(keys), list(mine)
    for indices, texts in who.greedy(list(mine.values()), tokens):
        new = {wanted[index]: text for index, text in zip(indices, texts, strict=True)}
        kept.add(new)
        tick(sum(times[key] for key in new), name)
    cache.exchange()
    tick(sum(times[key] for key in due if key not in mine), name)
    return [kept[key] for key in keys]


def prompt_key(row: Row) -> str:
    """Return the digest of what is asked; the completion has no part in it."""
    return digest_rows([Row(prompt=row.prompt, completion="")])
