"""What the garbage collector of a serving process walks."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from eul_serve.errors import EngineError
from eul_serve.serve.heap import freeze_heap
from eul_serve.serve.run import serve
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import ServiceHome, settings_at


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


class Node:
    """Part of a cycle."""

    other: Node
    ended: list[str]

    def __del__(self) -> None:
        self.ended.append("ended")


def cycle(ended: list[str]) -> None:
    one, two = Node(), Node()
    one.other, two.other = two, one
    one.ended = two.ended = ended


def test_what_was_there_is_walked_no_more_and_new_garbage_is_still_collected() -> None:
    ended: list[str] = []
    before = len(gc.get_objects())
    freeze_heap()
    assert gc.get_freeze_count() > 0.9 * before
    assert len(gc.get_objects()) < 0.1 * before
    cycle(ended)
    gc.collect()
    assert ended == ["ended", "ended"]


def test_garbage_of_the_start_is_collected_and_not_kept_for_good() -> None:
    ended: list[str] = []
    gc.disable()
    try:
        cycle(ended)
        freeze_heap()
    finally:
        gc.enable()
    assert ended == ["ended", "ended"]


async def test_a_server_that_says_it_is_ready_has_frozen_its_heap(home: ServiceHome) -> None:
    home.write_policy(acme={"default": "poems:stable", "bundles": ["poems"]})
    engine, frozen = FakeEngine(home.fingerprint), []

    async def start(_: object) -> FakeEngine:
        return engine

    def ready(_: object) -> None:
        frozen.append(gc.get_freeze_count())
        engine.broken = EngineError("ended by the test")

    assert gc.get_freeze_count() == 0
    with pytest.raises(EngineError, match="ended by the test"):
        await serve(settings_at(home.root), start, ready, CollectorRegistry())
    assert frozen[0] > 10_000
