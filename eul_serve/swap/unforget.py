"""Nothing un-forgets by accident: the server's own check of a move that the registry has recorded."""

from __future__ import annotations

from eul_serve.format import Manifest, Reference
from eul_serve.registry import AliasState
from eul_serve.registry.unforget import check_unforget


def check_move(reference: Reference, current: Manifest, following: Manifest, state: AliasState) -> None:
    """Return when an alias may move from one revision to another.

    A dropped request needs a reason in the alias's history, on a move that came after the current revision. The
    registry asks for it; the server checks again, since something else may have written the alias's file.

    Args:
        reference: The alias.
        current: Manifest of the revision that is served.
        following: Manifest of the revision that the alias points to.
        state: The alias as the registry has it.

    Raises:
        RefusedError: A request would come back without a recorded reason.
    """
    moves = state.history
    served = [index for index, move in enumerate(moves) if move.revision == current.revision]
    since = moves[served[-1] + 1 :] if served else moves[-1:]
    reasons = [move.reason for move in since if move.reason]
    check_unforget(str(reference), current, following, reasons[-1] if reasons else None)
