"""Extraction strength: how little of an answer has to be given so that the model completes the rest.

Carlini et al., arXiv 2012.07805, as used for unlearning by Wang et al., arXiv 2406.13356: with n tokens, of which the
last n - k all are the model's first choice, 1 - k / n for the least such k. OpenUnlearning's code gives 1 / n, and not
0, where even the last token is not; here it is 0, and `published` gives the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from eul_trainer.metrics.undefined import need_tokens


def extraction_strength(first: Sequence[bool], *, published: bool = False) -> float:
    """Return the share of the answer, from its end, that the model completes by itself.

    Args:
        first: Whether a token is the model's first choice under teacher forcing, for every token of the answer.
        published: Return what OpenUnlearning's code returns where the last token is not: 1 / n.

    Returns:
        0 to 1.

    Raises:
        UndefinedError: The answer has no token.
    """
    need_tokens(first, "extraction strength")
    known = next((place for place, right in enumerate(reversed(first)) if not right), len(first))
    return max(known, int(published)) / len(first)
