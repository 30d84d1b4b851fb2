"""How far what is served answers as what is measured: greedy answers of a server beside those of transformers.

Two engines add in another order, so their last digits differ, and where two words are almost equally likely the answer
goes another way. A share near 1 is the rule; a small one says that losses and answers are of two different models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eul_trainer.evaluation.answers import answer, prompt_key
from eul_trainer.evaluation.cache import Cache
from eul_trainer.evaluation.scoring import Tick
from eul_trainer.evaluation.systems import Systems
from eul_trainer.records import Row

COMPARED = 32
"""Most prompts that both answer."""
UNFINISHED = "\ufffd"
"""What transformers writes for a character that the last token leaves unfinished, where vLLM writes nothing."""


def compared(rows: Sequence[Row]) -> list[int]:
    """Return which rows both answer: as good as drawn by chance, the same every time, no prompt twice."""
    by_key = {prompt_key(row): index for index, row in enumerate(rows)}
    return [by_key[key] for key in sorted(by_key)[:COMPARED]]


def agreement(
    systems: Systems, name: str, rows: Sequence[Row], served: Sequence[str], tokens: int, cache: Cache, tick: Tick
) -> dict[str, Any]:
    """Compare a server's greedy answers with those of transformers.

    Args:
        systems: The systems.
        name: The one that was served.
        rows: The rows.
        served: The server's answer to each.
        tokens: Most tokens per answer.
        cache: Where answers are kept.
        tick: Told about every batch.

    Returns:
        How many answers were compared (`rows`), and which share is the same word for word (`same`).
    """
    chosen = compared(rows)
    here = answer(systems.local(name), name, [rows[index] for index in chosen], tokens, cache, tick)
    same = sum(_words(served[index]) == _words(text) for index, text in zip(chosen, here, strict=True))
    return {"rows": len(chosen), "same": round(same / len(chosen), 6)}


def _words(text: str) -> list[str]:
    return text.rstrip(UNFINISHED).split()
