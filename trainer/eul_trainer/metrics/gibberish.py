"""Whether an answer is still language, by a rule that anyone can check by hand.

An answer is gibberish when one of these holds:
1. It has no word.
2. Fewer than 60 % of its characters other than spaces are letters, digits or common punctuation.
3. Of its words, at least four, more than half are the same word.
4. The same three words in a row occur three times or more.
5. A word is longer than 30 letters.
"""

from __future__ import annotations

from collections import Counter

from eul_trainer.metrics.rouge import words

PUNCTUATION = frozenset(".,;:!?'\"()-=²³°%$&/+\u2018\u2019\u201c\u201d")
CLEAN_SHARE = 0.6
REPEATED_SHARE = 0.5
MIN_WORDS = 4
REPEATED_PHRASE = 3
LONGEST_WORD = 30


def is_gibberish(answer: str) -> bool:
    """Return whether an answer is no longer language by the rule at the head of this file."""
    found = words(answer)
    return not found or _dirty(answer) or _repeats(found) or any(len(word) > LONGEST_WORD for word in found)


def _dirty(answer: str) -> bool:
    signs = [sign for sign in answer if not sign.isspace()]
    clean = sum(sign.isalnum() or sign in PUNCTUATION for sign in signs)
    return clean < CLEAN_SHARE * len(signs)


def _repeats(found: list[str]) -> bool:
    if len(found) >= MIN_WORDS and max(Counter(found).values()) > REPEATED_SHARE * len(found):
        return True
    phrases = Counter(zip(found, found[1:], found[2:], strict=False))
    return max(phrases.values(), default=0) >= REPEATED_PHRASE
