"""One hook point: a name inside vLLM that we rely on, and what about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VERSIONS = ("0.26", "0.33")
"""Oldest and newest vLLM whose source was compared with the ledger."""

Use = Literal["replaced", "subclassed", "overridden", "called", "read"]
"""What we do with a name. `replaced`: it leads to a class of ours while the plugin is live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookPoint:
    """One name inside vLLM, and all that must be true of it."""

    target: str
    """`module:path` of the name; an attribute of a class may be one that only its instances have."""
    use: Use
    """What we do with it."""
    why: str
    """Why we need it."""
    how: str
    """How we use it."""
    goes: str
    """What vLLM would have to offer for this entry to go."""
    test: str
    """The test that fails when what stands behind the name changes: `file::function`, from `tests/eul_serve/engine`."""
    since: str = VERSIONS[0]
    """The oldest version of the range that has it."""
    older: str | None = None
    """Its last part's name in the versions of the range before `since`."""
    takes: tuple[str, ...] = ()
    """Parameters by name, without `self`: of an overridden function all of them, of others those that we give."""
    reads: tuple[str, ...] = ()
    """Attributes of the class or its instances that we read or set."""
    used_by: tuple[str, ...] = ()
    """`module:path` of the functions of vLLM that must use the name, or what we put there is never reached."""

    @property
    def name(self) -> str:
        """The last part of the target."""
        return self.target.rpartition(":")[2].rpartition(".")[2]

    def spellings(self) -> tuple[str, ...]:
        """Return the target, and what it was called before."""
        if self.older is None:
            return (self.target,)
        return (self.target, self.target.removesuffix(self.name) + self.older)
