"""What a server knows of one revision, its state in the state machine included."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from eul_serve.engine.base import ResidentBundle
from eul_serve.errors import EulError
from eul_serve.format import Manifest
from eul_serve.format.canaries import Canary
from eul_serve.swap.revision import RevisionState


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One revision in one server."""

    name: str
    """A bundle that has it, for the registry."""
    revision: str
    """`sha256:<hex>`."""
    state: RevisionState = field(default_factory=RevisionState)
    """Where it is in its life."""
    manifest: Manifest | None = None
    """Its manifest, once verified."""
    canaries: tuple[Canary, ...] = ()
    """What it must hide before it serves, once verified."""
    resident: ResidentBundle | None = None
    """What the engine was given, once loading."""
    kept: bool = False
    """Whether it keeps its place in the cache."""
    pointers: set[str] = field(default_factory=set)
    """References that point to it."""
    error: EulError | None = None
    """Why it failed."""
    failures: int = 0
    """Failures in a row."""
    retry_at: float = 0.0
    """Monotonic seconds before which it is not tried again."""
    used: float = 0.0
    """Monotonic seconds of its last use."""
    since: float = 0.0
    """Monotonic seconds when it was loaded."""
    drains_since: float = 0.0
    """Monotonic seconds when its drain began."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, at every change of state."""

    def wake(self) -> None:
        """Tell everyone who waits that the state changed."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def wait_while(self, holds: Callable[[RevisionState], bool]) -> None:
        """Return when something does not hold of the state any more."""
        while holds(self.state):
            await self.changed.wait()
