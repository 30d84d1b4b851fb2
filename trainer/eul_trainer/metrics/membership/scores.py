"""Membership attacks, each from a row to a score that is higher where the row was trained on.

loss        -L                                        Yeom et al., arXiv 1709.01604
zlib        -L / compressed bytes of the text         Carlini et al., arXiv 2012.07805
min_k       mean of the k lowest log-probabilities    Shi et al., arXiv 2310.16789
min_k_plus  the same of (log p - mean) / deviation    Zhang et al., arXiv 2404.02936
reference   L under another model - L                 Carlini et al., arXiv 2012.07805
recall      LL after a prefix of unseen rows / LL     Xie et al., arXiv 2406.15968
"""

from __future__ import annotations

import math
import zlib as compression
from collections.abc import Sequence

from eul_trainer.metrics.membership.tokens import TokenView

LOWEST = 0.2
"""Share of a row's tokens that Min-K and Min-K++ read, at least one token; MUSE takes 0.4."""
LEAST_DEVIATION = 1e-6
"""Least deviation of a token's log-probability, nats: where the model is sure, there is none to divide by."""


def loss(row: TokenView) -> float:
    """Return minus the mean loss of the answer's tokens, nats."""
    return -row.loss


def zlib(row: TokenView) -> float:
    """Return minus the mean loss by the bytes of the compressed answer: dull text has a low loss and few bytes."""
    return -row.loss / len(compression.compress(row.text.encode()))


def min_k(row: TokenView, share: float = LOWEST) -> float:
    """Return the mean of the lowest log-probabilities.

    Args:
        row: The row.
        share: Share of its tokens that are read, above 0 to 1.

    Returns:
        Nats, at most 0.
    """
    return _lowest(row.logprobs, share)


def min_k_plus(row: TokenView, share: float = LOWEST) -> float:
    """Return the mean of the lowest log-probabilities, each in standard deviations from its mean.

    Args:
        row: The row, with means and deviations.
        share: Share of its tokens that are read, above 0 to 1.

    Returns:
        A number without a unit.
    """
    normal = [
        (found - mean) / max(deviation, LEAST_DEVIATION)
        for found, mean, deviation in zip(row.logprobs, row.means, row.deviations, strict=True)
    ]
    return _lowest(normal, share)


def reference(row: TokenView, other: TokenView) -> float:
    """Return how much higher the row's mean loss is under another model, one that never saw it, nats."""
    return other.loss - row.loss


def recall(row: TokenView, after_unseen: TokenView) -> float:
    """Return the log-likelihood after a prefix of unseen rows by that without it.

    Args:
        row: The row without a prefix.
        after_unseen: The row after rows that the model never saw, which unsettle what it has learned by heart.

    Returns:
        1 where the prefix changes nothing; higher the more likely the row was without it.
    """
    if row.loss == 0:  # certain without the prefix
        return math.inf if after_unseen.loss else 1.0
    return after_unseen.loss / row.loss


def _lowest(values: Sequence[float], share: float) -> float:
    """Return the mean of the lowest values."""
    count = max(1, int(share * len(values)))
    return math.fsum(sorted(values)[:count]) / count
