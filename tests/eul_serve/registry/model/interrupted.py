"""One client that is interrupted before one of its operations, by another that does a whole act."""

from __future__ import annotations

from collections.abc import Callable

from tests.eul_serve.registry.model.memory_store import Fault, Turn


def interrupted(before: str, act: Callable[[], object], fault: Fault | None = None, *, after: int = 0) -> Turn:
    """Return the turns of a client during which another does an act, before an operation that begins with some words.

    Args:
        before: Words of the operation, such as `create log/`.
        act: What happens first.
        fault: What goes wrong with the operation then.
        after: How many such operations pass first.

    Returns:
        The turns, for a `MemoryStore`.
    """
    passed = 0

    def turn(what: str) -> Fault | None:
        nonlocal passed
        passed += what.startswith(before)
        if not what.startswith(before) or passed != after + 1:
            return None
        act()
        return fault

    return turn
