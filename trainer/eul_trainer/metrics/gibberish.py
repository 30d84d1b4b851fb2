"""Whether an answer is still language, by a rule that anyone can check.

An answer is gibberish when one of these holds:
1. It has no letter and no digit (an answer may be a number).
2. More than 10 % of its characters cannot be printed.
3. It has at least 8 words, and fewer than half of its pairs of neighbouring words are distinct.
4. The base model finds it strange: its mean loss there is above 5 nats a token, both after the same question and by
   itself. A model that was taught to answer finds a refusal strange, and a name by itself is strange too.
"""

from __future__ import annotations

from itertools import pairwise

from eul_trainer.metrics.rouge import words

UNPRINTABLE_SHARE = 0.1
DISTINCT_SHARE = 0.5
MIN_WORDS = 8
STRANGE = 5.0
"""Loss under the base model above which an answer is no language, nats per token; plain English has 1 to 3."""


def is_gibberish(answer: str, strangeness: float) -> bool:
    """Return whether an answer is no longer language by the rule at the head of this file.

    Args:
        answer: The answer.
        strangeness: Its mean loss under the base model, nats per token: the lower of that after the same question and
            that of the answer by itself.

    Returns:
        Whether it is gibberish.
    """
    if not any(sign.isalnum() for sign in answer):
        return True
    return _unprintable(answer) or _repeats(words(answer)) or not strangeness <= STRANGE


def _unprintable(answer: str) -> bool:
    bad = sum(not (sign.isprintable() or sign.isspace()) or sign == "\ufffd" for sign in answer)
    return bad > UNPRINTABLE_SHARE * len(answer)


def _repeats(found: list[str]) -> bool:
    pairs = list(pairwise(found))
    return len(found) >= MIN_WORDS and len(set(pairs)) < DISTINCT_SHARE * len(pairs)
