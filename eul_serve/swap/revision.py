"""The life of one revision in one server: a pure function (state, event) -> (state, actions).

    WANTED --start--> PULLING --pulled--> LOADING --loaded--> RESIDENT <-unpointed/pointed-> SERVING
                         |                   |                    |
                       failed              failed              retired -> DRAINING -last finished-> UNLOADING -> GONE
                         v                   v
                       FAILED <--------------+      (start tries again)

A start while it drains makes it RESIDENT again: a rollback in the middle of a swap costs nothing.

Everything that happens outside (a pull, a load, a request that ends) comes in as an event; everything to be done
outside goes out as an action. Whoever executes the actions owns no rule of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from eul_serve.errors import EulError


class Stage(Enum):
    """How far a revision is."""

    WANTED = "wanted"
    """Named by somebody; nothing is done yet."""
    PULLING = "pulling"
    """Copied from the registry into the cache, and verified there."""
    LOADING = "loading"
    """Verified; on its way into every worker."""
    RESIDENT = "resident"
    """In every worker, and no alias points to it."""
    SERVING = "serving"
    """In every worker, and an alias points to it."""
    DRAINING = "draining"
    """Gives no new leases; requests in flight finish."""
    UNLOADING = "unloading"
    """On its way out of the workers; nothing runs on it."""
    GONE = "gone"
    """Out of the workers; the end."""
    FAILED = "failed"
    """Could not be pulled, verified or loaded."""


class Event(Enum):
    """What happened."""

    START = "start"
    PULLED = "pulled"
    LOADED = "loaded"
    POINTED = "pointed"
    UNPOINTED = "unpointed"
    ADMITTED = "admitted"
    FINISHED = "finished"
    RETIRED = "retired"
    UNLOADED = "unloaded"
    FAILED = "failed"


class Action(Enum):
    """What to do now."""

    PULL = "pull"
    LOAD = "load"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class RevisionState:
    """State of one revision."""

    stage: Stage = Stage.WANTED
    """How far it is."""
    in_flight: int = 0
    """Requests that run on it."""

    @property
    def admits(self) -> bool:
        """Whether a new request may run on it."""
        return self.stage in (Stage.RESIDENT, Stage.SERVING)

    @property
    def holds_place(self) -> bool:
        """Whether it takes one of the engine's places."""
        return self.stage not in (Stage.WANTED, Stage.FAILED, Stage.GONE)


Step = tuple[RevisionState, tuple[Action, ...]]

_MOVES: dict[tuple[Stage, Event], tuple[Stage, tuple[Action, ...]]] = {
    (Stage.WANTED, Event.START): (Stage.PULLING, (Action.PULL,)),
    (Stage.WANTED, Event.RETIRED): (Stage.GONE, ()),
    (Stage.FAILED, Event.START): (Stage.PULLING, (Action.PULL,)),
    (Stage.PULLING, Event.PULLED): (Stage.LOADING, (Action.LOAD,)),
    (Stage.PULLING, Event.FAILED): (Stage.FAILED, ()),
    (Stage.LOADING, Event.LOADED): (Stage.RESIDENT, ()),
    # A load that failed may have reached some workers; unloading is harmless where there is nothing.
    (Stage.LOADING, Event.FAILED): (Stage.FAILED, (Action.UNLOAD,)),
    (Stage.RESIDENT, Event.POINTED): (Stage.SERVING, ()),
    (Stage.SERVING, Event.UNPOINTED): (Stage.RESIDENT, ()),
    # Wanted again during the drain: it is still loaded, verified and whole.
    (Stage.DRAINING, Event.START): (Stage.RESIDENT, ()),
    (Stage.UNLOADING, Event.UNLOADED): (Stage.GONE, ()),
}


def advance(state: RevisionState, event: Event) -> Step:
    """Return the next state and what is to be done.

    Args:
        state: The state now.
        event: What happened.

    Returns:
        The next state, and the actions in order.

    Raises:
        EulError: The event cannot happen in this state: a bug of the caller.
    """
    if event is Event.ADMITTED and state.admits:
        return replace(state, in_flight=state.in_flight + 1), ()
    if event is Event.FINISHED and state.in_flight > 0:
        return _drained(replace(state, in_flight=state.in_flight - 1))
    if event is Event.RETIRED and state.stage is Stage.RESIDENT:
        return _drained(replace(state, stage=Stage.DRAINING))
    if (state.stage, event) not in _MOVES:
        raise EulError(f"revision: event {event.value!r} cannot happen while {state.stage.value}; this is a bug")
    stage, actions = _MOVES[state.stage, event]
    return replace(state, stage=stage), actions


def _drained(state: RevisionState) -> Step:
    """Remove a draining revision from the engine once nothing runs on it."""
    if state.stage is Stage.DRAINING and state.in_flight == 0:
        return replace(state, stage=Stage.UNLOADING), (Action.UNLOAD,)
    return state, ()
