"""Truth ratios of rows: right and wrong answers in other words, scored like rows of their own."""

from __future__ import annotations

from collections.abc import Sequence

from eul_serve.errors import InputError
from eul_trainer.evaluation.view import View
from eul_trainer.metrics.truth_ratio import RATIOS
from eul_trainer.records import Row

PARAPHRASED, PERTURBED = "paraphrased_answer", "perturbed_answers"
FIELDS = (PARAPHRASED, PERTURBED)
"""Fields of a row that has a truth ratio: a right answer in other words, and a list of wrong ones of its form."""


def variants(row: Row) -> list[Row]:
    """Return the row with its paraphrased answer, then with each wrong one; nothing where it has not both.

    Args:
        row: The row.

    Returns:
        Rows with the same prompt.

    Raises:
        InputError: A field is not what FIELDS says.
    """
    if any(name not in row.extra for name in FIELDS):
        return []
    right, wrong = row.extra[PARAPHRASED], row.extra[PERTURBED]
    if not isinstance(wrong, list) or not wrong or not all(isinstance(text, str) and text for text in [right, *wrong]):
        raise InputError(f"{row.where}: expected text in {PARAPHRASED!r} and a list of texts in {PERTURBED!r}")
    return [Row(prompt=row.prompt, completion=text, where=row.where) for text in [right, *wrong]]


def ratios(views: Sequence[View]) -> dict[str, float | None]:
    """Return the truth ratios of a row by kind, from the views of its variants; None where it has none."""
    if not views:
        return dict.fromkeys(RATIOS)
    right, *wrong = (view.loss for view in views)
    return {name: ratio(right, wrong) for name, ratio in RATIOS.items()}
