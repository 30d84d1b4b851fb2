"""The paper's membership attack: a classifier on final representations (arXiv 2310.20150, section 4.6).

The paper trains it to tell forgotten rows from retained ones. That says little: before unlearning they look alike to
the model, as it was trained on both, and the paper's untouched model is already near 0.5. Asked about forgotten rows
and rows that the model never saw, the same classifier says whether something of the forgotten ones is left. A report
has both, by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eul_trainer.metrics.membership.auc import Area, area
from eul_trainer.metrics.undefined import UndefinedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDS = 5
"""Most parts of a cross-validation; no more than the smaller set has rows."""
LEAST_ROWS = 2
"""Least rows of each set: one to learn from and one to be asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """How well a classifier tells two sets of rows apart, each row asked about by one that was not trained on it."""

    accuracy: float
    """Mean of the shares told right in the two sets, 0 to 1: 0.5 for one that always says the same."""
    area: Area
    """Area under its ROC curve, the first set as members."""


def separate(first: NDArray[np.floating], second: NDArray[np.floating], seed: int = 0) -> Separation:
    """Train a logistic regression to tell two sets of rows apart, by cross-validation.

    Args:
        first: Final representations, (rows, size); a row is the mean over its answer's tokens.
        second: The same of the other set.
        seed: Seed of the parts.

    Returns:
        How well it can.

    Raises:
        UndefinedError: A set has too few rows, or a representation is not a number.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    least = min(len(first), len(second))
    if least < LEAST_ROWS:
        raise UndefinedError(
            f"membership classifier: {len(first)} and {len(second)} rows; give at least {LEAST_ROWS} of each"
        )
    rows, labels = np.concatenate([first, second]), np.repeat([1, 0], [len(first), len(second)])
    if not np.isfinite(rows).all():
        raise UndefinedError("membership classifier: a representation is not a number; see the rows' losses")
    # Balanced: mostly one set is much larger, and always naming it would be right.
    classifier = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    parts = StratifiedKFold(min(FOLDS, least), shuffle=True, random_state=seed)
    scores = cross_val_predict(classifier, rows, labels, cv=parts, method="decision_function")
    right = (scores > 0) == labels
    return Separation(
        accuracy=float(right[labels == 1].mean() + right[labels == 0].mean()) / 2,
        area=area(scores[labels == 1].tolist(), scores[labels == 0].tolist()),
    )
