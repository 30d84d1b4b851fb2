"""How likely an answer is, per token, so that long and short ones compare (TOFU, arXiv 2401.06121, section 2.2.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence


def probability(loss: float) -> float:
    """Return P(answer | question)^(1 / tokens), the geometric mean of its tokens' probabilities.

    Args:
        loss: Mean loss of the answer's tokens, nats.

    Returns:
        0 to 1.
    """
    return math.exp(-loss)


def share_of_options(loss: float, others: Sequence[float]) -> float:
    """Return the true answer's probability as a share of all options', as TOFU does for real authors and world facts.

    Args:
        loss: Mean loss of the true answer's tokens, nats.
        others: The same of every wrong option.

    Returns:
        0 to 1; computed relative to the likeliest option, so that no option is so unlikely that all of them are zero.
    """
    least = min(loss, *others)
    true = math.exp(least - loss)
    return true / (true + math.fsum(math.exp(least - other) for other in others))
