"""The state machine of one revision, over every path that hypothesis finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import EulError
from eul_serve.swap.revision import Action, Event, RevisionState, Stage, advance

EVENTS = st.lists(st.sampled_from(Event), max_size=40)


def walk(events: list[Event]) -> list[tuple[RevisionState, Event, RevisionState, tuple[Action, ...]]]:
    """Every legal step of a list of events; illegal ones change nothing, as an exception leaves the state."""
    state, steps = RevisionState(), []
    for event in events:
        try:
            following, actions = advance(state, event)
        except EulError:
            continue
        steps.append((state, event, following, actions))
        state = following
    return steps


@given(EVENTS)
def test_nothing_ends_while_requests_run(events: list[Event]) -> None:
    for _, _, state, actions in walk(events):
        assert state.in_flight >= 0
        if state.leaves or state.stage in (Stage.GONE, Stage.FAILED) or Action.UNLOAD in actions:
            assert state.in_flight == 0


@given(EVENTS)
def test_serves_only_what_was_pulled_verified_and_loaded(events: list[Event]) -> None:
    seen: list[Event] = []
    for before, event, state, _ in walk(events):
        seen.append(event)
        if state.admits:
            last = max(index for index, one in enumerate(seen) if one is Event.PASSED)
            way = [Event.START, Event.PULLED, Event.VERIFIED, Event.LOADED]
            places = [max(index for index, one in enumerate(seen[:last]) if one is step) for step in way[1:]]
            assert seen.index(Event.START) < places[0] < places[1] < places[2] < last
            assert Event.FAILED not in seen[last:]
        if event is Event.ADMITTED:
            assert before.admits


@given(EVENTS)
def test_loads_and_unloads_alternate(events: list[Event]) -> None:
    held = False
    for _, _, state, actions in walk(events):
        for action in actions:
            if action is Action.LOAD:
                assert not held
                held = True
            if action is Action.UNLOAD:
                assert held
                held = False
        if state.admits or state.stage is Stage.DRAINING:
            assert held
        if state.stage is Stage.GONE:
            assert not held


@given(EVENTS)
def test_gone_is_the_end(events: list[Event]) -> None:
    for before, _, state, actions in walk(events):
        if before.stage is Stage.GONE:
            assert state.stage is Stage.GONE
            assert not actions


def run(*events: Event) -> RevisionState:
    state = RevisionState()
    for event in events:
        state, _ = advance(state, event)
    return state


UP = (Event.START, Event.PULLED, Event.VERIFIED, Event.LOADED, Event.PASSED)


def test_a_drain_waits_for_the_last_request() -> None:
    state = run(*UP, Event.ADMITTED, Event.ADMITTED, Event.RETIRED)
    assert state == RevisionState(Stage.DRAINING, 2)
    state, actions = advance(state, Event.FINISHED)
    assert (state.stage, actions) == (Stage.DRAINING, ())
    state, actions = advance(state, Event.FINISHED)
    assert (state, actions) == (RevisionState(Stage.DRAINING, 0, Action.UNLOAD), (Action.UNLOAD,))


def test_a_rollback_during_the_drain_takes_the_loaded_revision_back() -> None:
    state = run(*UP, Event.ADMITTED, Event.RETIRED, Event.START, Event.POINTED)
    assert state == RevisionState(Stage.ACTIVE, 1)


def test_a_serving_revision_cannot_be_retired() -> None:
    with pytest.raises(EulError, match="cannot happen while active"):
        run(*UP, Event.POINTED, Event.RETIRED)


def test_a_failed_load_is_undone_and_tried_again() -> None:
    for way in (UP[:3], UP[:4]):
        state, actions = advance(run(*way), Event.FAILED)
        assert (state, actions) == (RevisionState(Stage.FAILED), (Action.UNLOAD,))
        assert advance(state, Event.START) == (RevisionState(under_way=Action.PULL), (Action.PULL,))


def test_what_never_reached_a_worker_is_not_taken_out_of_them() -> None:
    for way in (UP[:1], UP[:2]):
        assert advance(run(*way), Event.FAILED) == (RevisionState(Stage.FAILED), ())


def test_nothing_is_started_twice_and_nothing_stops_on_its_way_in() -> None:
    for count in range(1, 5):
        for event in (Event.START, Event.RETIRED, Event.ADMITTED, Event.POINTED):
            with pytest.raises(EulError, match="cannot happen"):
                advance(run(*UP[:count]), event)


def test_a_revision_that_is_leaving_does_not_turn_round() -> None:
    with pytest.raises(EulError, match="cannot happen while draining"):
        run(*UP, Event.RETIRED, Event.START)
    assert run(*UP, Event.RETIRED, Event.UNLOADED).stage is Stage.GONE
