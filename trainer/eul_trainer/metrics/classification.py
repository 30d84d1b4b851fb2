"""Classification by label words: the label whose word the model finds likeliest, and how often that is right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from eul_trainer.metrics.undefined import UndefinedError


def chosen_label(losses: Mapping[str, float]) -> str:
    """Return the likeliest label.

    Args:
        losses: Mean loss of each label's tokens after the same text, nats; of equal ones the first is chosen.

    Returns:
        The label.

    Raises:
        UndefinedError: There is no label, or a loss is not a number.
    """
    if not losses or any(map(math.isnan, losses.values())):
        raise UndefinedError(f"classification: losses of the labels are {dict(losses)}; expected a number for each")
    return min(losses, key=losses.__getitem__)


def accuracy(right: Sequence[str], chosen: Sequence[str]) -> float:
    """Return the share of rows whose label was chosen.

    Args:
        right: Each row's label.
        chosen: What was chosen.

    Returns:
        0 to 1.

    Raises:
        UndefinedError: There is no row.
    """
    if not right:
        raise UndefinedError("classification: there are no rows; give rows whose completion is a label")
    return sum(a == b for a, b in zip(right, chosen, strict=True)) / len(right)
