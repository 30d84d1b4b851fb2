"""Finding mentions of a name in a text, and what comes near to one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from eul_serve.errors import InputError
from eul_trainer.records import plain

NEAR = ("accents", "punctuation", "longer word")
"""Ways in which a text can come near to a mention, the nearest first."""

_SHORT = 4
"""Letters from which on a name counts as near in a word that is up to three letters longer; below, only with an s."""
_NO_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese and Korean letters: beside a name in them no word has to end."""


class Mention:
    """One name to look for.

    It is found as whole words, whatever the case, the Unicode form and the width of spaces: `zoe` finds `ZOE` and
    `Zoe's`, and neither `Zoey` nor `Zoë`, which come near. Names in scripts without spaces are found anywhere.
    """

    def __init__(self, name: str) -> None:
        """Prepare the search for a name, which must hold a letter or digit."""
        self.name = plain(name)
        if not re.search(r"\w", self.name):
            raise InputError(f"mention {name!r:.100}: expected a word to look for")
        self._exact = _whole(self.name)
        self._bare = _whole(bare(self.name))
        self._words = _whole(spaced(bare(self.name)))
        more = r"\w{1,3}" if len(self.name) >= _SHORT else "s"
        self._longer = re.compile(rf"(?<!\w){re.escape(self.name)}{more}(?!\w)")

    def found(self, text: str) -> bool:
        """Return whether a text that went through `plain` mentions the name."""
        return self._exact.search(text) is not None

    def near(self, text: str) -> str | None:
        """Return how a text that does not mention the name comes near to it: one of `NEAR`, or None."""
        without_accents = bare(text)
        if self._bare.search(without_accents):
            return "accents"
        if self._words.search(spaced(without_accents)):
            return "punctuation"
        return "longer word" if self._longer.search(text) else None


def bare(text: str) -> str:
    """Return a text without accents and other marks."""
    return "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))


def spaced(text: str) -> str:
    """Return a text with single spaces in place of all that is neither letter nor digit."""
    return " ".join(re.findall(r"[^\W_]+", text))


def read_mentions(given: Sequence[str], path: Path | None) -> list[Mention]:
    """Return the names of the command line and of a file with one on each line.

    Args:
        given: Names.
        path: The file, if any; blank lines are passed over.

    Returns:
        The mentions, each once.

    Raises:
        InputError: There is none, the file cannot be read, or a name has no letter.
    """
    names = list(given)
    if path:
        try:
            names += [line for line in path.read_bytes().decode().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise InputError(f"mention file {str(path)!r}: cannot read: {reason}") from error
    found = {mention.name: mention for mention in map(Mention, names)}
    if not found:
        raise InputError("mentions: expected at least one; name it with --mention TEXT or --mention-file FILE")
    return list(found.values())


def _whole(name: str) -> re.Pattern[str]:
    # \b would not do: a name can begin or end with a sign that is no part of a word, such as C++.
    before = "" if re.match(f"[{_NO_SPACES}]", name) else r"(?<!\w)"
    after = "" if re.search(f"[{_NO_SPACES}]$", name) else r"(?![\w\u0300-\u036f])"
    return re.compile(f"{before}{re.escape(name)}{after}")
