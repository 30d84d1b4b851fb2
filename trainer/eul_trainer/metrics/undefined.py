"""A measure that has no value for the rows at hand: a marked gap in a report, never a zero."""

from __future__ import annotations

from collections.abc import Sized

from eul_serve.errors import EulError


class UndefinedError(EulError):
    """A measure has no value here; the message says why, and what would give it one."""


def need_tokens(answer: Sized, measure: str) -> None:
    """Refuse an answer without tokens.

    Args:
        answer: One item for each of its tokens.
        measure: Name of the measure, for the message.

    Raises:
        UndefinedError: There is none.
    """
    if not len(answer):
        raise UndefinedError(f"{measure}: the answer has no token; leave the row out")
