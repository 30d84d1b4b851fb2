"""Truth ratio: how likely wrong answers are beside a right one in other words. Several things go by the name.

Per question, with p = P(answer | question)^(1 / tokens), a paraphrase a of the right answer and wrong answers w of its
form:

    arithmetic   R = mean_w p(w) / p(a)                      TOFU, arXiv 2401.06121, equation 1
    geometric    R = exp(mean_w log p(w)) / p(a)             TOFU's code, and OpenUnlearning

Over rows the mean is taken of one of two scores:

    near_one     min(R, 1 / R)     for forgotten rows: right and wrong are as likely
    true_better  max(0, 1 - R)     for all others: the right one is likelier

A report names both. TOFU's numbers are geometric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Ratio = Callable[[float, Sequence[float]], float]
"""From the paraphrase's mean loss and the wrong answers' to R, all in nats per token."""


def geometric(paraphrased: float, wrong: Sequence[float]) -> float:
    """Return R of TOFU's code.

    Args:
        paraphrased: Mean loss of the paraphrased right answer's tokens, nats.
        wrong: The same of every wrong answer.

    Returns:
        0 to infinity.
    """
    return _exp(paraphrased - math.fsum(wrong) / len(wrong))


def arithmetic(paraphrased: float, wrong: Sequence[float]) -> float:
    """Return R of TOFU's equation 1; arguments as of `geometric`."""
    return math.fsum(_exp(paraphrased - loss) for loss in wrong) / len(wrong)


RATIOS: Mapping[str, Ratio] = {"geometric": geometric, "arithmetic": arithmetic}
"""Ratios by name."""


def near_one(ratio: float) -> float:
    """Return min(R, 1 / R): 1 where right and wrong answers are as likely, 0 where one is out of the question."""
    return min(ratio, 1 / ratio) if ratio else 0.0


def true_better(ratio: float) -> float:
    """Return max(0, 1 - R): 1 where wrong answers are out of the question, 0 where they are as likely or likelier."""
    return max(0.0, 1 - ratio)


def _exp(exponent: float) -> float:
    """Return e to a power, infinity where that has no number."""
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf
