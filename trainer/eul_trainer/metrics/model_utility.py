"""Model utility: the harmonic mean of nine measures on what is to be kept (TOFU, arXiv 2401.06121, section 2.2.2).

Probability, ROUGE-L recall and truth ratio (geometric, true_better), each on retained rows, real authors and world
facts. Of the last two the probability is the share of the options. A harmonic mean is 0 as soon as one of them is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from eul_trainer.metrics.undefined import UndefinedError


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUtility:
    """Means over the rows of one set, each 0 to 1."""

    probability: float
    """Of the right answer, or its share of the options."""
    rouge_l: float
    """ROUGE-L recall of the greedy answer."""
    truth_ratio: float
    """Truth ratio, geometric, true_better."""

    @property
    def parts(self) -> tuple[float, float, float]:
        """The three numbers."""
        return self.probability, self.rouge_l, self.truth_ratio


def model_utility(sets: Sequence[SetUtility]) -> float:
    """Return the harmonic mean of the measures of all sets.

    Args:
        sets: The sets; TOFU has three.

    Returns:
        0 to 1.

    Raises:
        UndefinedError: There is no set, or a measure is not a number.
    """
    parts = [part for one in sets for part in one.parts]
    if not parts:
        raise UndefinedError("model utility: there are no rows to keep; give retained rows")
    if any(map(math.isnan, parts)):
        raise UndefinedError("model utility: a measure of the retained rows is not a number; see their losses")
    return statistics.harmonic_mean(parts)
