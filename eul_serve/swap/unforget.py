"""Nothing un-forgets by accident: the server's own check of a move that the registry has recorded."""

from __future__ import annotations

from typing import Any

from eul_serve.format import Reference
from eul_serve.registry import AliasState
from eul_serve.registry.unforget import Covers, check_unforget

MAX_NAMED, MAX_REASON = 100, 500
"""Requests, and characters of a reason, that an audit log gets; the registry has all of them."""


def check_move(reference: Reference, current: Covers, following: Covers, state: AliasState) -> dict[str, Any]:
    """Say what a move of an alias un-forgets, where somebody has said why it may.

    A dropped request needs a reason in the alias's history, on a move that came after the current revision. The
    registry asks for it; the server checks again, since something else may have written the alias's file.

    Args:
        reference: The alias.
        current: What the alias covered when it was last served.
        following: The revision that is to be served.
        state: The alias as the registry has it.

    Returns:
        For the audit log: how many requests the move `unforgets`, `requests`, their first ids, and `reason`, why it
        may; nothing where it drops none.

    Raises:
        RefusedError: A request would come back without a recorded reason.
    """
    moves = state.history
    served = [index for index, move in enumerate(moves) if move.revision == current.revision]
    since = moves[served[-1] + 1 :] if served else moves[-1:]
    reason = next((move.reason for move in reversed(since) if move.reason), None)
    dropped = check_unforget(str(reference), current, following, reason)
    if not dropped or reason is None:
        return {}
    return {"unforgets": len(dropped), "requests": list(dropped[:MAX_NAMED]), "reason": reason[:MAX_REASON]}
