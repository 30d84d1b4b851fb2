"""Who is next at the engine, and who is told to come later."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import BusyError, InputError
from eul_serve.traffic import Line, LineLimits


class Engine:
    """Requests behind a line; each runs until the test lets it end."""

    def __init__(self, running: int = 1, seconds: float = 30.0) -> None:
        self.line = Line(LineLimits(running=running, seconds=seconds))
        self.order: list[str] = []
        self.ends: list[asyncio.Event] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.most = 0

    async def send(self, tenant: str, tokens: int = 1, priority: int = 1) -> asyncio.Task[None]:
        """Send a request, and return once it runs or waits."""
        task = asyncio.create_task(self._run(tenant, tokens, priority))
        self.tasks.append(task)
        await asyncio.sleep(0)
        return task

    async def _run(self, tenant: str, tokens: int, priority: int) -> None:
        async with self.line.place(tenant, tokens, priority):
            self.order.append(tenant)
            self.most = max(self.most, self.line.running)
            self.ends.append(asyncio.Event())
            await self.ends[-1].wait()

    async def finish(self) -> None:
        """Let every request that runs or will run end, one after the other."""
        done = 0
        while done < len(self.ends):
            self.ends[done].set()
            done += 1
            for _ in range(4):
                await asyncio.sleep(0)
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_a_tenant_that_sends_much_waits_behind_itself() -> None:
    engine = Engine()
    for _ in range(50):
        await engine.send("greedy")
    for name in ("small", "other"):
        await engine.send(name)
    await engine.finish()
    # One of the greedy tenant's runs, and the first of the others is as early as its second.
    assert engine.order.index("small") <= 2
    assert engine.order.index("other") <= 3
    assert len(engine.order) == 52


@pytest.mark.parametrize("shares", [(1, 1), (3, 1), (10, 2)])
async def test_tokens_are_shared_by_priority(shares: tuple[int, int]) -> None:
    engine = Engine()
    for _ in range(60):
        await engine.send("a", 10, shares[0])
        await engine.send("b", 10, shares[1])
    await engine.finish()
    # While both wait: the first 60 of 120.
    counted = Counter(engine.order[:60])
    assert counted["a"] / counted["b"] == pytest.approx(shares[0] / shares[1], rel=0.15)


async def test_long_requests_wait_longer_than_short_ones() -> None:
    engine = Engine()
    for _ in range(40):
        await engine.send("long", 100)
        await engine.send("short", 10)
    await engine.finish()
    counted = Counter(engine.order[:30])
    assert counted["short"] >= 26  # ten of the short ones for each long one, by tokens


async def test_no_more_run_than_the_engine_takes() -> None:
    engine = Engine(running=3)
    for number in range(20):
        await engine.send(f"t{number % 4}")
    assert (engine.line.running, len(engine.line)) == (3, 17)
    await engine.finish()
    assert (engine.most, engine.line.running, len(engine.line)) == (3, 0, 0)


async def test_who_waits_too_long_is_told_so() -> None:
    engine = Engine(seconds=0.05)
    await engine.send("a")
    task = await engine.send("b")
    with pytest.raises(BusyError, match="wait for the engine") as error:
        await task
    assert error.value.limit == "queue_seconds"
    await engine.finish()
    assert (engine.line.running, len(engine.line)) == (0, 0)


async def test_who_would_wait_too_long_is_told_at_once() -> None:
    now = 100.0
    engine = Engine()
    engine.line = Line(LineLimits(running=1, seconds=30.0), lambda: now)
    for _ in range(5):
        await engine.send("a")
    for number in range(3):  # the engine needs twenty seconds for each
        now += 20.0
        engine.ends[number].set()
        for _ in range(4):
            await asyncio.sleep(0)
    assert len(engine.line) == 1
    with pytest.raises(BusyError, match=r"about 40.0 s, and .* longer than 30 s") as error:
        await (await engine.send("a"))
    assert error.value.retry_seconds == pytest.approx(10.0)
    waiting = await engine.send("b")  # its first request is the next one, which is in time
    await engine.finish()
    assert (engine.order[4], waiting.exception()) == ("b", None)


async def test_a_request_that_goes_away_leaves_nothing() -> None:
    engine = Engine()
    await engine.send("a")
    waiting = await engine.send("b")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(engine.line) == 0
    await engine.finish()
    assert engine.line.running == 0


async def test_a_place_that_comes_as_its_request_goes_away_is_not_lost() -> None:
    engine = Engine()
    await engine.send("a")
    waiting = await engine.send("b")
    engine.ends[0].set()
    await asyncio.sleep(0)  # the place is b's now, and b has not run since
    waiting.cancel()
    await asyncio.sleep(0.01)
    assert (engine.line.running, len(engine.line)) == (0, 0)
    await engine.send("c")
    assert engine.order[-1] == "c"
    await engine.finish()


async def test_who_comes_while_a_cancelled_one_is_still_in_the_line_is_not_forgotten() -> None:
    engine = Engine()
    await engine.send("a")
    waiting = await engine.send("b")
    # In one turn of the loop: a leaves, c comes, and b, which was cancelled, takes itself out of the line.
    engine.ends[0].set()
    engine.tasks.append(asyncio.create_task(engine._run("c", 1, 1)))
    waiting.cancel()
    for _ in range(6):
        await asyncio.sleep(0)
    assert engine.order == ["a", "c"]
    await engine.finish()


@given(st.lists(st.sampled_from(["send a", "send b", "send c", "end", "cancel"]), max_size=80), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_places_are_conserved(steps: list[str], running: int) -> None:
    async def play() -> None:
        engine = Engine(running)
        for number, step in enumerate(steps):
            if step.startswith("send"):
                await engine.send(step[-1], tokens=1 + number % 7, priority=1 + number % 3)
            elif step == "end" and engine.ends:
                engine.ends[number % len(engine.ends)].set()
            elif step == "cancel" and engine.tasks:
                engine.tasks[number % len(engine.tasks)].cancel()
            await asyncio.sleep(0)
            assert 0 <= engine.line.running <= running
            for _ in range(3):  # let those go who were cancelled
                await asyncio.sleep(0)
            assert not len(engine.line) or engine.line.running == running  # nobody waits for a place that is free
        await engine.finish()
        assert (engine.line.running, len(engine.line)) == (0, 0)

    asyncio.run(play())


@pytest.mark.parametrize(("running", "seconds"), [(0, 1.0), (1, 0.0), (1, 1e6), (1, float("nan"))])
def test_limits_are_checked(running: int, seconds: float) -> None:
    with pytest.raises(InputError):
        LineLimits(running=running, seconds=seconds)
