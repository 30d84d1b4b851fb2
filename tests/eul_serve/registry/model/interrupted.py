"""One client that is interrupted before one of its operations, by another that does a whole act."""

from __future__ import annotations

from collections.abc import Callable

from tests.eul_serve.registry.model.memory_store import Fault, Turn


def interrupted(before: str, act: Callable[[], object], fault: Fault | None = None) -> Turn:
    """Return the turns of a client that does an act, once, before the first operation that begins with some words.

    Args:
        before: Words of the operation, such as `create log/`.
        act: What happens first.
        fault: What goes wrong with the operation then.

    Returns:
        The turns, for a `MemoryStore`.
    """
    done = False

    def turn(what: str) -> Fault | None:
        nonlocal done
        if done or not what.startswith(before):
            return None
        done = True
        act()
        return fault

    return turn
