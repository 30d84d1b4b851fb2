"""Who gets a slot: nobody waits for ever, no slot stands free, and no more bundles run than there are slots."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from eul_serve.engine.turns import Turns


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
