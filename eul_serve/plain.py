"""Text made harmless for a terminal."""

from __future__ import annotations


def plain(text: str) -> str:
    """Return text on one line, with characters that a terminal would obey written out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
