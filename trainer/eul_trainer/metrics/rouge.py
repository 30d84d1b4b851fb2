"""ROUGE-L recall: how much of the reference answer an answer repeats, in order."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Return the words of a text: runs of letters and digits, in lower case."""
    return _WORD.findall(text.casefold())


def rouge_l_recall(reference: str, answer: str) -> float:
    """Return the longest common subsequence of words, as a share of the reference's words.

    Args:
        reference: The expected answer.
        answer: The answer given.

    Returns:
        0 to 1; 0 for a reference without words.
    """
    expected, found = words(reference), words(answer)
    return common_length(expected, found) / len(expected) if expected else 0.0


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for item in first:
        before = 0  # what row[column] was for the previous item of `first`
        for column, other in enumerate(second):
            above = row[column + 1]
            row[column + 1] = before + 1 if item == other else max(above, row[column])
            before = above
    return row[-1]
