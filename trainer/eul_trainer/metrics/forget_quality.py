"""Forget quality: whether a model answers forgotten rows as one that never saw them (TOFU, arXiv 2401.06121, 2.2.3).

A two-sample Kolmogorov-Smirnov test on the rows' truth ratios, under the model that is judged and under a twin that was
taught without them. TOFU reports the p-value alone. It depends on the number of rows, and it is as small for a model
that has forgotten too much as for one that has forgotten nothing: read it with the statistic and its side.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eul_trainer.metrics.undefined import UndefinedError

Side = Literal["below", "above", "equal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetQuality:
    """What the test says."""

    p: float
    """Probability of a statistic at least as large if both samples came from one distribution, 0 to 1."""
    statistic: float
    """Largest distance between the two empirical distribution functions, 0 to 1."""
    side: Side
    """Whether most ratios of the judged model lie below or above the twin's, where the distance is largest."""
    rows: int
    """Rows of the judged model."""
    twin_rows: int
    """Rows of the twin."""


def forget_quality(ratios: Sequence[float], twin: Sequence[float]) -> ForgetQuality:
    """Compare the truth ratios of forgotten rows with a twin's.

    Args:
        ratios: Truth ratio of each row under the model that is judged; infinite ones are ordered last.
        twin: The same under the twin.

    Returns:
        The p-value (exact where SciPy computes it so: up to 10,000 rows), the statistic, its side and the sizes.

    Raises:
        UndefinedError: A sample is empty, or a ratio is not a number.
    """
    from scipy.stats import ks_2samp

    if not ratios or not twin:
        raise UndefinedError(
            f"forget quality: {len(ratios)} rows here and {len(twin)} of the twin have a truth ratio; give at least 1 "
            "of each, with a paraphrased and wrong answers"
        )
    if any(map(math.isnan, [*ratios, *twin])):
        raise UndefinedError("forget quality: a truth ratio is not a number; see the rows' losses")
    with warnings.catch_warnings():
        # Where samples of one size differ by a single step, SciPy's exact sum is above 1 by rounding; it then takes the
        # limit's formula, which is 1 there too, and warns.
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful")
        found = ks_2samp(ratios, twin)
    statistic = float(found.statistic)
    # SciPy's sign is that of F - G: a distribution function that is above the other's belongs to the lower sample.
    side: Side = "equal" if statistic == 0 else "below" if found.statistic_sign > 0 else "above"
    return ForgetQuality(p=float(found.pvalue), statistic=statistic, side=side, rows=len(ratios), twin_rows=len(twin))
