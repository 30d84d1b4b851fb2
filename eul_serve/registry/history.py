"""The moves of an alias, as the entries of its chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast, get_args

from eul_serve.audit.chain import Entry
from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format import check_digest
from eul_serve.registry.base import Act, AliasMove

_WORDS = ("actor", "reason")


def earlier_target(history: Sequence[AliasMove]) -> str | None:
    """Return where a rollback leads: below the current target on the stack of targets.

    Publishing and promoting put a target on the stack, a rollback takes one off, so that two rollbacks go back by two.
    """
    stack: list[str] = []
    for move in history:
        if move.act == "rollback":
            del stack[-1:]
        else:
            stack.append(move.revision)
    return stack[-2] if len(stack) > 1 else None


def facts_of(move: AliasMove) -> dict[str, Any]:
    """Return what an entry says of a move, beside its act and time."""
    facts = asdict(move)
    del facts["act"], facts["at"]
    return facts


def move_of(entry: Entry, where: str) -> AliasMove:
    """Return the move that an entry tells of.

    Args:
        entry: The entry.
        where: The alias as `name:alias`, for messages.

    Returns:
        The move.

    Raises:
        BundleFormatError: It tells of no move.
    """
    facts = entry.facts
    words = (facts.get(word) for word in _WORDS)
    if not isinstance(entry.at, str) or not all(word is None or isinstance(word, str) for word in words):
        raise BundleFormatError(f"{where}: entry {entry.number}: expected a time, an actor and a reason as text")
    if entry.act not in get_args(Act):
        raise BundleFormatError(f"{where}: act: expected one of {', '.join(get_args(Act))}, found {entry.act!r:.50}")
    try:
        revision = check_digest(facts["revision"])
    except (InputError, KeyError, TypeError) as error:
        raise BundleFormatError(f"{where}: entry {entry.number}: revision: {error!s:.200}") from error
    return AliasMove(
        act=cast(Act, entry.act), revision=revision, at=entry.at, actor=facts.get("actor"), reason=facts.get("reason")
    )
