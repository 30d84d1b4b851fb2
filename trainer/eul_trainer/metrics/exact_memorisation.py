"""Exact memorisation: the share of an answer's tokens that are the model's first choice, under teacher forcing.

Tirumala et al., arXiv 2205.10770, section 3; OpenUnlearning's `exact_memorization`.
"""

from __future__ import annotations

from collections.abc import Sequence

from eul_trainer.metrics.undefined import need_tokens


def exact_memorisation(first: Sequence[bool]) -> float:
    """Return the share of tokens that are the model's first choice.

    Args:
        first: Whether it is, for every token of the answer.

    Returns:
        0 to 1.

    Raises:
        UndefinedError: The answer has no token.
    """
    need_tokens(first, "exact memorisation")
    return sum(first) / len(first)
