"""ROUGE (Lin 2004): how much of a reference an answer repeats, in words of lower case without stemming.

rouge_l_recall   TOFU's, for a short answer inside a longer one
rouge_f1         ROUGE-1, ROUGE-2 and ROUGE-L as F1, for summaries. ROUGE-L's is also what MUSE (arXiv 2407.06460, 3.1)
                 and OpenUnlearning call verbatim memorisation, where the row is the head of a text and its
                 continuation, and knowledge memorisation, where it is a question and its answer
"""

from __future__ import annotations

import re
from collections import Counter
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


def rouge_f1(reference: str, answer: str) -> dict[str, float]:
    """Return F1 of the shared words, pairs of words, and longest common subsequence.

    Args:
        reference: The expected text.
        answer: The text given.

    Returns:
        rouge1, rouge2 and rougeL, each 0 to 1; 0 where nothing is shared.
    """
    expected, found = words(reference), words(answer)
    return {
        "rouge1": _f1(_shared(expected, found, 1), len(expected), len(found)),
        "rouge2": _f1(_shared(expected, found, 2), len(expected) - 1, len(found) - 1),
        "rougeL": _f1(common_length(expected, found), len(expected), len(found)),
    }


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


def _shared(first: Sequence[str], second: Sequence[str], size: int) -> int:
    """Return how many runs of so many words both have, each as often as in the text that has it less often."""

    def runs(text: Sequence[str]) -> Counter[tuple[str, ...]]:
        return Counter(tuple(text[start : start + size]) for start in range(len(text) - size + 1))

    return sum((runs(first) & runs(second)).values())


def _f1(shared: int, expected: int, found: int) -> float:
    return 2 * shared / (expected + found) if shared else 0.0
