"""Masked-word rows for encoder-decoder models: the paper's language-modelling term (arXiv 2310.20150, section 3.1).

A share of a text's words is taken out, neighbours together, and each gap is marked by one of T5's sentinels. The model
is asked, with the paper's words, for what was in the gaps:

    Predict the masked word The film was <extra_id_0> from start <extra_id_1> finish.
    -> <extra_id_0> dull <extra_id_1> to <extra_id_2>

The paper names the prefix. The share, the sentinels and the form of the answer are T5's own (arXiv 1910.10683).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from eul_serve.errors import InputError
from eul_trainer.model.load import Tokenizer
from eul_trainer.records import Row

PREFIX = "Predict the masked word"
"""What stands before the text, word for word as in the paper."""
SHARE = 0.15
"""Share of the words that is taken out; at least one word is."""
SENTINEL = "<extra_id_{}>"


def masked_rows(tokenizer: Tokenizer, rows: Sequence[Row], seed: int) -> list[Row]:
    """Return the rows with words of their prompts masked, and the missing words as completions.

    Args:
        tokenizer: The base model's tokenizer.
        rows: The rows.
        seed: Seed of which words are taken out; the same row and seed give the same words.

    Returns:
        One row per row.

    Raises:
        InputError: The tokenizer has no sentinels.
    """
    vocabulary = tokenizer.get_vocab()
    sentinels = next(number for number in range(len(vocabulary) + 1) if SENTINEL.format(number) not in vocabulary)
    if sentinels < 2:
        raise InputError(
            f"masked words: expected a tokenizer with sentinels such as {SENTINEL.format(1)}, as T5's has, found none; "
            "leave --masked-words out, or with --objective paper its term by --weight gamma=0"
        )
    chances = [random.Random(f"{seed}:{row.prompt}") for row in rows]  # noqa: S311  # chance, not secrecy
    return [_masked(row, chance, sentinels - 1) for row, chance in zip(rows, chances, strict=True)]


def _masked(row: Row, chance: random.Random, gaps: int) -> Row:
    words = row.prompt.split()
    count = min(max(1, round(SHARE * len(words))), gaps)
    missing = set(chance.sample(range(len(words)), count))
    text, answer = [PREFIX], list[str]()
    number = 0
    for place, word in enumerate(words):
        if place not in missing:
            text.append(word)
            continue
        if place - 1 not in missing:
            text.append(SENTINEL.format(number))
            answer.append(SENTINEL.format(number))
            number += 1
        answer.append(word)
    answer.append(SENTINEL.format(number))
    return Row(prompt=" ".join(text), completion=" ".join(answer), group=row.group, where=row.where)
