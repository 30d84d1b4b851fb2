"""What builders do to a text: put it into a template, cut it, mask words in it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from eul_serve.errors import InputError

PLACE = "{text}"


def check_template(template: str) -> str:
    """Return a prompt template, which must hold `{text}` once."""
    if template.count(PLACE) != 1:
        raise InputError(f"template {template!r:.200}: expected {PLACE} once, where the text goes")
    return template


def fill(template: str, text: str) -> str:
    """Put a text into a template; other braces stay as they are."""
    return template.replace(PLACE, text)


def cut(text: str, words: int | None) -> str:
    """Return a text's first words with single spaces between them; None for all, whose spaces stay."""
    if words is None:
        return text
    return " ".join(text.split()[:words])


def check_words(words: int | None) -> None:
    """Refuse a limit of less than one word."""
    if words is not None and words < 1:
        raise InputError(f"max words {words}: expected at least 1")


def phrases(names: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds names as whole words; None where there are none.

    A name of several words is found whatever its case and spaces, a single word only as it is written: `Her` is a film,
    `her` is not.
    """
    found = []
    for name in sorted(set(names), key=lambda name: (-len(name), name)):
        words = [re.escape(word) for word in name.split()]
        if words:
            flags = "(?i:{})" if len(words) > 1 else "{}"
            found.append(flags.format(r"\s+".join(words)))
    return re.compile(rf"(?<!\w)(?:{'|'.join(found)})(?!\w)") if found else None
