"""Perplexity: e to the mean loss of all tokens of a text, every token with the same weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eul_trainer.metrics.undefined import UndefinedError


def perplexity(losses: Sequence[float], tokens: Sequence[int]) -> float:
    """Return the perplexity of several rows together.

    Args:
        losses: Mean loss of each row's tokens, nats.
        tokens: Tokens of each row.

    Returns:
        1 to infinity.

    Raises:
        UndefinedError: There is no token.
    """
    if not sum(tokens):
        raise UndefinedError("perplexity: the rows have no token; give rows with text")
    total = math.fsum(loss * count for loss, count in zip(losses, tokens, strict=True))
    try:
        return math.exp(total / sum(tokens))
    except OverflowError:
        return math.inf
