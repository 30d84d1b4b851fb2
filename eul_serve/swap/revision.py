"""The life of one revision in one server: a pure function (state, event) -> (state, actions).

    ANNOUNCED --pulled--> PULLED --verified--> VERIFIED --loaded--> LOADED --passed--> WARM <-unpointed/pointed-> ACTIVE
        |                   |                     |                   |                 |
        +-------------------+----- failed --------+-------------------+               retired
                                     v                                                  v
                                  FAILED (start tries again)                        DRAINING -last finished-> GONE

A stage is what has been achieved; `under_way` is what is being done about the next one. A start while it drains makes
it WARM again: a rollback in the middle of a swap costs nothing.

Everything that happens outside (a pull, a load, a request that ends) comes in as an event; everything to be done
outside goes out as an action. Whoever executes the actions owns no rule of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from eul_serve.errors import EulError


class Stage(Enum):
    """How far a revision is."""

    ANNOUNCED = "announced"
    """Named by somebody."""
    PULLED = "pulled"
    """Its bytes are in the cache."""
    VERIFIED = "verified"
    """They are the revision, and were made for this base model."""
    LOADED = "loaded"
    """In every worker."""
    WARM = "warm"
    """Has answered a probe, and its canaries passed; takes requests, and no alias points to it."""
    ACTIVE = "active"
    """Takes requests, and an alias points to it."""
    DRAINING = "draining"
    """Takes no new requests; those in flight finish, then it leaves the workers."""
    GONE = "gone"
    """Out of the workers; the end."""
    FAILED = "failed"
    """Could not be pulled, verified, loaded or probed."""


class Event(Enum):
    """What happened."""

    START = "start"
    PULLED = "pulled"
    VERIFIED = "verified"
    LOADED = "loaded"
    PASSED = "passed"
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
    """Copy it into the cache, which is PULLED, and verify it there, which is VERIFIED."""
    LOAD = "load"
    PROBE = "probe"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class RevisionState:
    """State of one revision."""

    stage: Stage = Stage.ANNOUNCED
    """How far it is."""
    in_flight: int = 0
    """Requests that run on it."""
    under_way: Action | None = None
    """What is being done; None where it stays as it is."""

    @property
    def admits(self) -> bool:
        """Whether a new request may run on it."""
        return self.stage in (Stage.WARM, Stage.ACTIVE)

    @property
    def arrives(self) -> bool:
        """Whether it is on its way in."""
        return self.under_way in (Action.PULL, Action.LOAD, Action.PROBE)

    @property
    def leaves(self) -> bool:
        """Whether it is on its way out of the workers."""
        return self.under_way is Action.UNLOAD

    @property
    def holds_place(self) -> bool:
        """Whether it takes one of the engine's places."""
        return self.arrives or self.stage not in (Stage.ANNOUNCED, Stage.FAILED, Stage.GONE)


Step = tuple[RevisionState, tuple[Action, ...]]

_IDLE: dict[tuple[Stage, Event], tuple[Stage, Action | None]] = {
    (Stage.ANNOUNCED, Event.START): (Stage.ANNOUNCED, Action.PULL),
    (Stage.ANNOUNCED, Event.RETIRED): (Stage.GONE, None),
    (Stage.FAILED, Event.START): (Stage.ANNOUNCED, Action.PULL),
    (Stage.WARM, Event.POINTED): (Stage.ACTIVE, None),
    (Stage.ACTIVE, Event.UNPOINTED): (Stage.WARM, None),
    # Wanted again during the drain: it is still loaded, verified and whole.
    (Stage.DRAINING, Event.START): (Stage.WARM, None),
}
"""What may happen while nothing is under way: the next stage, and what is done about it."""

_BUSY: dict[tuple[Stage, Event], tuple[Stage, Action | None]] = {
    (Stage.PULLED, Event.VERIFIED): (Stage.VERIFIED, Action.LOAD),
    (Stage.VERIFIED, Event.LOADED): (Stage.LOADED, Action.PROBE),
    (Stage.LOADED, Event.PASSED): (Stage.WARM, None),
    (Stage.DRAINING, Event.UNLOADED): (Stage.GONE, None),
}
"""What ends something that is under way."""


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
    if event is Event.RETIRED and state.stage is Stage.WARM:
        return _drained(replace(state, stage=Stage.DRAINING))
    if event is Event.PULLED and state.stage is Stage.ANNOUNCED and state.arrives:
        return replace(state, stage=Stage.PULLED), ()  # and is being verified
    if event is Event.FAILED and state.arrives:
        # A load that failed may have reached some workers; unloading is harmless where there is nothing.
        undo = (Action.UNLOAD,) if state.stage in (Stage.VERIFIED, Stage.LOADED) else ()
        return RevisionState(Stage.FAILED), undo
    moves = _IDLE if state.under_way is None else _BUSY
    if (state.stage, event) not in moves:
        raise EulError(f"revision: event {event.value!r} cannot happen while {state.stage.value}; this is a bug")
    stage, action = moves[state.stage, event]
    return replace(state, stage=stage, under_way=action), () if action is None else (action,)


def _drained(state: RevisionState) -> Step:
    """Remove a draining revision from the engine once nothing runs on it."""
    if state.stage is Stage.DRAINING and state.in_flight == 0:
        return replace(state, under_way=Action.UNLOAD), (Action.UNLOAD,)
    return state, ()
