"""Random operations leave every answer of a real engine right and its memory where it was; and how an engine dies.

`make test` runs a short seeded slice; `make soak` the whole: EUL_SOAK_OPERATIONS=10000.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from eul_serve.engine.base import ResidentBundle, Sampling, Work
from eul_serve.engine.settings import EngineSettings
from eul_serve.errors import EngineError

from .conftest import answer, place, work
from .reference import Answers, greedy_answers

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]

OPERATIONS = int(os.environ.get("EUL_SOAK_OPERATIONS", "300"))
REVISIONS, PROMPTS, TOKENS, CAPACITY, MOST_RUNNING = 6, 8, 5, 4, 10
NewBundle = Callable[..., ResidentBundle]
SETTLED = 2000
"""Operations after which memory must not grow any more."""
MOST_GROWTH = 16 * 2**20
"""Bytes; 2 KB for each of the remaining 8,000 operations."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_model: Path, engine_cache: Path) -> AsyncIterator[Any]:
    from eul_serve.engine.vllm_engine import VllmEngine

    with pytest.MonkeyPatch.context() as patch:
        # oneDNN keeps up to 1,024 products by their shapes, some 100 kB each: bounded, but not full by SETTLED.
        patch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8")
        patch.setenv("LRU_CACHE_CAPACITY", "8")
        engine = await VllmEngine.start(
            EngineSettings(
                model=tiny_model,
                max_context=256,
                slots=2,
                capacity=CAPACITY,
                max_rank=32,
                deny_base=False,
                bundles=engine_cache,
                kv_cache_gib=0.02,  # filled long before memory is looked at: pages taken one by one look like a leak
                turn_seconds=0.05,
                max_batch=8,
            )
        )
    yield engine
    await engine.close()


@dataclass
class Traffic:
    """What is loaded and what runs, and one method for each operation."""

    engine: Any
    stored: dict[str, ResidentBundle]
    answers: dict[str, Answers]
    generator: random.Random
    loaded: dict[str, ResidentBundle] = field(default_factory=dict)
    running: dict[asyncio.Task[None], str] = field(default_factory=dict)
    pinned: ResidentBundle | None = None
    next_id: int = 1000
    compared: int = 0
    aborted: int = 0

    def fresh(self, name: str) -> ResidentBundle:
        self.next_id += 1
        return replace(self.stored[name], id=self.next_id)

    async def load(self) -> None:
        away = sorted(self.stored.keys() - self.loaded.keys())
        if away and len(self.loaded) < CAPACITY:
            name = self.generator.choice(away)
            bundle = self.fresh(name)
            await self.engine.load(bundle)
            self.loaded[name] = bundle

    async def unload(self) -> None:
        idle = sorted(self.loaded.keys() - set(self.running.values()))
        if idle:
            await self.engine.unload(self.loaded.pop(self.generator.choice(idle)))

    async def swap(self) -> None:
        """Load a revision again under a fresh id; new requests go there, the old one leaves after its last answer."""
        if self.loaded and len(self.loaded) < CAPACITY:
            name = self.generator.choice(sorted(self.loaded))
            old, bundle = self.loaded[name], self.fresh(name)
            await self.engine.load(bundle)
            self.loaded[name] = bundle
            await asyncio.gather(*(task for task, owner in self.running.items() if owner == name))
            await self.engine.unload(old)

    async def pin(self) -> None:
        """Have one bundle keep a slot, and let the one go that had it; that one may be gone by now."""
        if self.pinned is not None:
            await self.engine.unpin(self.pinned)
            self.pinned = None
        if self.loaded and self.generator.random() < 0.8:
            self.pinned = self.loaded[self.generator.choice(sorted(self.loaded))]
            await self.engine.pin(self.pinned)

    async def generate(self) -> None:
        await self._start(most=TOKENS)

    async def abort(self) -> None:
        await self._start(most=self.generator.randrange(1, TOKENS))

    async def drain(self) -> None:
        """Wait for all answers: batches of every size to none, and an engine that is idle for a moment."""
        await asyncio.gather(*self.running)

    async def _start(self, most: int) -> None:
        name = self.generator.choice([*sorted(self.loaded), "base"])
        task = asyncio.create_task(self._answer(name, *self.generator.choice(self.answers[name]), most))
        self.running[task] = name
        task.add_done_callback(lambda done: self.running.pop(done))
        if len(self.running) >= MOST_RUNNING:
            await next(iter(self.running))

    async def _answer(self, name: str, prompt: tuple[int, ...], expected: tuple[int, ...], most: int) -> None:
        self.next_id += 1
        sampling = Sampling(max_tokens=TOKENS)
        # One salt for all: what keeps bundles apart here is the engine alone.
        work = Work(
            id=f"r{self.next_id}", token_ids=prompt, bundle=self.loaded.get(name), salt="one", sampling=sampling
        )
        found: list[int] = []
        pieces = self.engine.generate(work)
        async for piece in pieces:
            found += piece.token_ids
            if len(found) >= most:
                break
        await pieces.aclose()
        assert tuple(found) == expected[: len(found)], f"{name}: {found}, expected {expected}"
        self.compared += 1
        self.aborted += most < TOKENS


def memory() -> int:
    """Return the bytes that the engine's processes hold, this one left out."""
    return sum(child.memory_info().rss for child in psutil.Process().children(recursive=True))


async def test_random_operations_leave_every_answer_right(
    engine: Any, tiny_model: Path, engine_cache: Path, make_bundle: Any, tmp_path: Path
) -> None:
    kinds = (("relu", 4), ("silu", 4), ("relu", 32), ("gelu", 7), ("relu", 4), ("relu", 16))
    stored = {
        f"b{seed}": place(
            make_bundle(tmp_path / f"b{seed}", tiny_model, seed=seed, rank=rank, scale=1.0, activation=activation),
            engine_cache,
        )
        for seed, (activation, rank) in enumerate(kinds[:REVISIONS])
    }
    answers = greedy_answers(tiny_model, {**stored, "base": None}, tokens=TOKENS, lengths=(3, 20, 140), count=PROMPTS)
    generator = random.Random(20261127)
    traffic = Traffic(engine, stored, answers, generator)
    chances = {"generate": 60, "abort": 15, "load": 10, "unload": 8, "swap": 7, "pin": 5, "drain": 2}
    settled = 0
    for number in range(OPERATIONS):
        (kind,) = generator.choices(list(chances), list(chances.values()))
        await getattr(traffic, kind)()
        if number == SETTLED:
            settled = memory()
    await traffic.drain()
    assert traffic.compared > OPERATIONS / 2
    assert traffic.aborted > OPERATIONS / 20
    assert await engine.resident() == {bundle.id for bundle in traffic.loaded.values()}
    for bundle in traffic.loaded.values():
        await engine.unload(bundle)
    assert await engine.resident() == frozenset()
    if settled:
        assert memory() - settled < MOST_GROWTH


async def eventually_dead(engine: Any) -> bool:
    for _ in range(100):  # the front end learns of the death a moment later
        try:
            await engine.check()
        except EngineError:
            return True
        await asyncio.sleep(0.1)
    return False


async def test_zz_the_worker_dies_rather_than_answer_from_the_denied_base(
    engine: Any, new_bundle: Callable[..., ResidentBundle]
) -> None:
    """The last test with this engine: the front end's check is off, so the worker's own is what is left."""
    bundle = new_bundle(61)
    await engine.load(bundle)
    await engine._llm.live.collective_rpc("eul_deny_base", args=(True,))
    tokens, _ = await answer(engine, work(bundle))
    assert tokens  # a bundle is still served
    with pytest.raises(EngineError, match="the engine failed"):
        await answer(engine, work(None))
    assert await eventually_dead(engine)
    with pytest.raises(EngineError):
        await engine.load(new_bundle(62))
    with suppress(EngineError):
        await engine.unload(bundle)
    await engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        await engine.check()
    await engine.close()
