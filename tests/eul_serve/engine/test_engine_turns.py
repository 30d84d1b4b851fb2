"""Who gets a slot: nobody waits for ever, no slot stands free, and no more bundles run than there are slots."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from eul_serve.engine.turns import Turns
from eul_serve.errors import CapacityError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Job:
    """A request that runs until it is told to end."""

    def __init__(self, turns: Turns, bundle: int, running: Counter[int] | None = None) -> None:
        self.bundle, self.started, self.end = bundle, asyncio.Event(), asyncio.Event()
        self.running = running if running is not None else Counter()
        self.task = asyncio.create_task(self._run(turns))

    async def _run(self, turns: Turns) -> None:
        async with turns.turn(self.bundle):
            self.started.set()
            self.running[self.bundle] += 1
            try:
                await self.end.wait()
            finally:
                self.running[self.bundle] -= 1

    async def finish(self) -> None:
        self.end.set()
        await self.task
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_as_many_bundles_run_as_there_are_slots_and_the_next_waits() -> None:
    turns = Turns(2, 1.0, Clock())
    jobs = [Job(turns, bundle) for bundle in (1, 2, 3, 3)]
    await settle()
    assert [job.started.is_set() for job in jobs] == [True, True, False, False]
    assert turns.waiting == 2
    await jobs[0].finish()
    assert [job.started.is_set() for job in jobs[2:]] == [True, True]  # a slot brings all that wait for its bundle
    assert turns.waiting == 0
    for job in jobs[1:]:
        await job.finish()


async def test_steady_traffic_for_one_bundle_does_not_starve_another() -> None:
    """What vLLM's own scheduler does not give: there bundle 2 runs only once no request for bundle 1 is left."""
    clock = Clock()
    turns = Turns(1, 2.0, clock)
    first = Job(turns, 1)
    await settle()
    other = Job(turns, 2)
    await settle()
    clock.now = 1.9
    second = Job(turns, 1)  # its turn is not over yet
    await settle()
    assert second.started.is_set()
    clock.now = 2.1
    late = Job(turns, 1)
    await settle()
    assert not late.started.is_set()
    await first.finish()
    await second.finish()
    assert other.started.is_set()
    assert not late.started.is_set()
    await other.finish()
    assert late.started.is_set()
    await late.finish()


async def test_a_bundle_keeps_its_slot_while_nobody_waits() -> None:
    clock = Clock()
    turns = Turns(1, 2.0, clock)
    first = Job(turns, 1)
    await settle()
    clock.now = 100.0
    second = Job(turns, 1)
    await settle()
    assert second.started.is_set()
    await first.finish()
    await second.finish()


async def test_the_longest_waiting_bundle_is_next() -> None:
    turns = Turns(1, 0.0, Clock())
    jobs = [Job(turns, bundle) for bundle in (1, 2, 3, 2)]
    await settle()
    await jobs[0].finish()
    assert [job.started.is_set() for job in jobs] == [True, True, False, True]
    for job in (jobs[1], jobs[3]):
        await job.finish()
    assert jobs[2].started.is_set()
    await jobs[2].finish()


@pytest.mark.parametrize("moment", ["waiting", "just started"])
async def test_a_cancelled_request_gives_its_place_back(moment: str) -> None:
    turns = Turns(1, 1.0, Clock())
    first, second, third = Job(turns, 1), Job(turns, 2), Job(turns, 3)
    await settle()
    if moment == "waiting":
        second.task.cancel()
        await settle()
        await first.finish()
    else:
        first.end.set()
        await first.task  # the turn of the second was just given; it has not run since
        second.task.cancel()
        await settle()
    assert third.started.is_set()
    assert turns.waiting == 0
    await third.finish()
    assert not turns._holders


async def test_random_traffic_never_holds_more_than_the_slots_and_everyone_gets_through() -> None:
    generator, running = random.Random(7), Counter[int]()
    turns = Turns(3, 0.0)
    jobs: list[Job] = []
    for _ in range(2000):
        live = [job for job in jobs if not job.task.done()]
        kind = generator.random()
        if kind < 0.5 or not live:
            jobs.append(Job(turns, generator.randrange(8), running))
        elif kind < 0.6:
            generator.choice(live).task.cancel()
        elif started := [job for job in live if job.started.is_set()]:
            generator.choice(started).end.set()
        await settle()
        holding = sum(count > 0 for count in running.values())
        assert holding <= 3
        assert holding == 3 or not turns.waiting  # no slot stands free while somebody waits
    while live := [job for job in jobs if not job.task.done()]:
        for job in live:
            job.end.set()
        await settle()
    assert not turns._holders
    assert not turns._queues
    assert all(job.started.is_set() or job.task.cancelled() for job in jobs)


async def test_a_pinned_bundle_never_waits_and_its_slot_is_nobody_else_s() -> None:
    clock = Clock()
    turns = Turns(2, 1.0, clock)
    await turns.pin(1)
    other = Job(turns, 2)
    await settle()
    third = Job(turns, 3)
    await settle()
    assert (other.started.is_set(), third.started.is_set()) == (True, False)
    clock.now = 100.0
    mine = Job(turns, 1)  # somebody waits, and has for long
    await settle()
    assert mine.started.is_set()
    await mine.finish()
    assert not third.started.is_set()
    await other.finish()
    assert third.started.is_set()
    turns.unpin(1)
    fourth = Job(turns, 4)
    await settle()
    assert fourth.started.is_set()
    for job in (third, fourth):
        await job.finish()


async def test_unpinning_gives_the_slot_to_who_waits_once_nothing_runs_in_it() -> None:
    turns = Turns(2, 1.0, Clock())
    await turns.pin(1)
    jobs = [Job(turns, bundle) for bundle in (1, 2, 3)]
    await settle()
    turns.unpin(1)
    await settle()
    assert not jobs[2].started.is_set()  # a request of 1 still runs
    await jobs[0].finish()
    assert jobs[2].started.is_set()
    for job in jobs[1:]:
        await job.finish()


async def test_a_pin_waits_for_a_slot_and_one_that_is_given_up_leaves_nothing() -> None:
    turns = Turns(2, 1.0, Clock())
    jobs = [Job(turns, bundle) for bundle in (1, 2)]
    await settle()
    pin = asyncio.create_task(turns.pin(3))
    await settle()
    assert not pin.done()
    pin.cancel()
    await settle()
    assert turns.waiting == 0
    again = asyncio.create_task(turns.pin(3))
    await settle()
    await jobs[0].finish()
    assert again.done()
    await jobs[1].finish()
    others = [Job(turns, bundle) for bundle in (4, 5)]
    await settle()
    assert [job.started.is_set() for job in others] == [True, False]
    turns.unpin(3)
    await settle()
    assert others[1].started.is_set()
    for job in others:
        await job.finish()


async def test_the_last_slot_is_never_pinned() -> None:
    turns = Turns(2, 1.0, Clock())
    await turns.pin(1)
    with pytest.raises(CapacityError, match="expected at most 1 pinned"):
        await turns.pin(2)
    with pytest.raises(CapacityError, match="expected at most 0 pinned"):
        await Turns(1, 1.0, Clock()).pin(1)
