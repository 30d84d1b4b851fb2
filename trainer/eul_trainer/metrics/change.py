"""How far a bundle changes what should stay: greedy answers that are still the base model's, and divergence of tokens.

The mean loss of kept rows can stand still while most greedy answers change, because it reads one answer and averages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from eul_trainer.metrics.undefined import UndefinedError


def unchanged_share(before: Sequence[str], after: Sequence[str]) -> float:
    """Return the share of greedy answers that are the same, sign by sign.

    Args:
        before: Answers of the base model.
        after: Answers with the bundle, in the same order and of the same greatest length.

    Returns:
        0 to 1.

    Raises:
        UndefinedError: There is no answer.
    """
    if not before:
        raise UndefinedError("unchanged answers: there are no rows; give rows to keep")
    return sum(a == b for a, b in zip(before, after, strict=True)) / len(before)


def mean_divergence(divergences: Sequence[float], tokens: Sequence[int]) -> float:
    """Return the mean divergence a token, every token with the same weight.

    Args:
        divergences: Mean KL(base || bundle) of each row's answer tokens, nats.
        tokens: Answer tokens of each row.

    Returns:
        Nats, 0 or more.

    Raises:
        UndefinedError: There is no token, or a divergence is not a number.
    """
    if not sum(tokens):
        raise UndefinedError("divergence: the rows have no token; give rows with answers")
    total = math.fsum(value * count for value, count in zip(divergences, tokens, strict=True))
    if math.isnan(total):
        raise UndefinedError("divergence: a row's divergence is not a number; see the rows' losses")
    return total / sum(tokens)
