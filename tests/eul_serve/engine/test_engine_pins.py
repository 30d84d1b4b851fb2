"""A pinned bundle keeps its slot in the real engine, and nobody else starves for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from eul_serve.engine.base import ResidentBundle
from eul_serve.errors import CapacityError, EngineError

from .conftest import answer, work

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]
NewBundle = Callable[..., ResidentBundle]


async def slots(engine: Any) -> list[list[int | None]]:
    """What every worker has in its slots."""
    return [report["slots"] for report in await engine._llm.live.collective_rpc("eul_report")]


async def test_a_pinned_bundle_keeps_its_slot_while_others_take_turns(engine: Any, new_bundle: NewBundle) -> None:
    pinned, *others = [new_bundle(seed) for seed in (71, 72, 73)]
    for bundle in (pinned, *others):
        await engine.load(bundle)
    alone = {bundle.id: await answer(engine, work(bundle, salt="alone")) for bundle in (pinned, *others)}
    await engine.pin(pinned)
    places = [worker.index(pinned.id) for worker in await slots(engine)]
    for _ in range(3):  # two more bundles for the one slot that is left
        jobs = [*others, *others, pinned]
        found = await asyncio.gather(*(answer(engine, work(bundle, salt="together")) for bundle in jobs))
        for bundle, (tokens, logprobs) in zip(jobs, found, strict=True):
            assert tokens == alone[bundle.id][0]
            assert logprobs == pytest.approx(alone[bundle.id][1], abs=1e-4)
        assert [worker.index(pinned.id) for worker in await slots(engine)] == places
    await engine.unpin(pinned)
    await asyncio.gather(*(answer(engine, work(bundle, salt="after")) for bundle in others))
    for bundle in others:  # now both of them fit
        await answer(engine, work(bundle, salt="last"))
    assert all(set(worker) == {bundle.id for bundle in others} for worker in await slots(engine))
    for bundle in (pinned, *others):
        await engine.unload(bundle)


async def test_one_slot_is_always_left_and_only_residents_are_pinned(engine: Any, new_bundle: NewBundle) -> None:
    first, second = new_bundle(74), new_bundle(75)
    with pytest.raises(EngineError, match="not resident"):
        await engine.pin(first)
    await engine.load(first)
    await engine.load(second)
    await engine.pin(first)
    await engine.pin(first)  # nothing happens
    with pytest.raises(CapacityError, match="at most 1 pinned bundles, so that one of 2 slots is left"):
        await engine.pin(second)
    await engine.unload(first)  # a pin goes with its bundle
    await engine.pin(second)
    await engine.unload(second)
    assert await engine.resident() == frozenset()
