"""Answers drawn by chance, several to a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from eul_trainer.evaluation.answers import generate
from eul_trainer.evaluation.cache import Cache
from eul_trainer.evaluation.scoring import Tick
from eul_trainer.evaluation.systems import Systems
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.records import Row, digest_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Answers drawn by chance."""

    count: int
    """Answers of each row."""
    tokens: int
    """Most tokens of an answer."""
    temperature: float = 1.0
    """What they are drawn at, above 0."""
    seed: int = 0
    """Seed."""


def sample(
    systems: Systems,
    name: str,
    rows: Sequence[Row],
    draws: Draws,
    cache: Cache,
    tick: Tick,
) -> list[list[str]]:
    """Draw several answers to each row's prompt.

    Args:
        systems: The systems.
        name: The one that answers.
        rows: The rows; their completions are not read.
        draws: How many, and how.
        cache: Where answers are kept.
        tick: Told about every batch.

    Returns:
        Per row, the answers in the order in which they were drawn; the same seed, rows and batches give the same ones.
    """
    model = systems.model
    keys = [digest_rows([Row(prompt=row.prompt, completion="")]) for row in rows]
    kept = cache.of(systems.identity(name), "sample", **asdict(draws))
    due = {key: row for key, row in zip(keys, rows, strict=True) if key not in kept}
    tick(sum(key not in due for key in keys), name)
    examples = encode(model.tokenizer, list(due.values()), limit=context_limit(model.network))
    with systems.on(name), torch.random.fork_rng(devices=[]):
        for key, example in zip(due, examples, strict=True):  # one row a batch: all its answers at once
            torch.manual_seed(int(key[-8:], 16) ^ draws.seed)
            new = generate(model, [example.prompt] * draws.count, draws.tokens, temperature=draws.temperature)
            kept.add({key: [model.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in new]})
            tick(keys.count(key), name)
    return [kept[key] for key in keys]
