"""How a server hears of changes: by events, by polls that cost next to nothing, and never in step with others."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import InputError, NotFoundError
from eul_serve.registry.directory_store import DirectoryStore
from eul_serve.registry.events import removals
from eul_serve.registry.local import LocalRegistry
from eul_serve.registry.store import Key
from eul_serve.registry.stored import StoredRegistry
from eul_serve.swap import watcher
from eul_serve.swap.pace import JITTER, MOST_SECONDS, MOST_TIMES, Pace
from eul_serve.swap.watcher import Watcher
from tests.eul_serve.service_home import ServiceHome

SLOW = 30.0
NAMES = ("poems", "prose", "novels")


class CountingStore(DirectoryStore):
    """A directory that counts what it is asked for, and the bytes that it hands out."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: Counter[str] = Counter()
        self.bytes = 0

    def read(self, key: Key) -> bytes | None:
        self.asked["/".join(key)] += 1
        data = super().read(key)
        self.bytes += len(data or b"")
        return data

    def list(self, *prefix: str) -> list[str]:
        self.asked["list"] += 1
        return super().list(*prefix)


async def test_a_poll_over_k_aliases_costs_k_plus_one_requests_and_no_byte(
    home: ServiceHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(NAMES):
        home.publish(name, "stable", "r1", seed=seed)
    home.write_policy(acme={"bundles": list(NAMES)})
    store = CountingStore(home.root / "registry")
    monkeypatch.setattr("eul_serve.serve.parts.open_registry", lambda _: StoredRegistry(store))
    async with home.serve(poll_seconds=60.0) as service:
        assert len(service.engine.loaded) == len(NAMES)
        store.asked.clear()
        store.bytes = 0
        await service.server.follower.poll_registry()
        assert dict(store.asked) == {
            "orders/0000000001.json": 1,
            **{f"names/{name}/aliases/stable/0000000002.json": 1 for name in NAMES},
        }
        assert store.bytes == 0
        second = home.publish("poems", "stable", "r1", seed=7)
        store.asked.clear()
        await service.server.follower.poll_registry()
        await service.server.follower.settle()
        entry = service.server.residency.entry(second)
        assert entry is not None
        assert entry.pointers == {"poems:stable"}


async def test_a_moved_alias_is_taken_up_within_a_second_however_rare_the_polls_are(home: ServiceHome) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme={"default": "poems:stable", "bundles": ["poems"]})
    async with home.serve(poll_seconds=SLOW) as service:
        await service.watching()
        for seed in (2, 3):
            started = time.monotonic()
            new = home.publish("poems", "stable", "r1", seed=seed)
            await service.until(lambda new=new: service.server.residency.entry(new) is not None, "the swap's start")
            assert time.monotonic() - started < 1.0
            await service.until(
                lambda new=new: getattr(service.server.residency.entry(new), "pointers", None), "the swap's end"
            )
        started = time.monotonic()
        home.registry.order("ban", new, "ticket 4711")
        await service.until(lambda: not service.engine.loaded, "the ban")
        assert time.monotonic() - started < 2.0


async def test_without_the_package_polls_go_on(
    home: ServiceHome, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme={"default": "poems:stable", "bundles": ["poems"]})
    with caplog.at_level(logging.INFO, "eul_serve.swap"):
        async with home.serve() as service:
            await service.until(lambda: "pip install 'eul-serve[server]'" in caplog.text, "the line in the log")
            new = home.publish("poems", "stable", "r1", seed=2)
            await service.until(
                lambda: getattr(service.server.residency.entry(new), "pointers", None), "the swap's end"
            )


async def test_events_end_with_their_directory_and_begin_again_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eul_serve.registry.events.LOOK_MS", 50)
    monkeypatch.setattr(watcher, "RETRY_SECONDS", 0.02)
    with pytest.raises(NotFoundError):
        await anext(removals(tmp_path / "tmp"))
    wake = asyncio.Event()
    task = asyncio.create_task(Watcher(LocalRegistry(tmp_path), wake).run())
    for _ in range(2):
        (tmp_path / "tmp").mkdir()
        await _until_told(tmp_path / "tmp", wake)
        (tmp_path / "tmp").rename(tmp_path / f"old{time.monotonic()}")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _until_told(folder: Path, wake: asyncio.Event) -> None:
    wake.clear()
    for number in range(500):
        part = folder / str(number)
        part.touch()
        part.unlink()
        await asyncio.sleep(0.02)
        if wake.is_set():
            return
    raise AssertionError("waited 10 seconds for an event")


async def test_a_registry_without_events_is_not_watched() -> None:
    await asyncio.wait_for(Watcher(object(), asyncio.Event()).run(), 1.0)  # type: ignore[arg-type]


async def test_events_that_fail_in_any_way_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(LocalRegistry):
        tries = 0

        async def changes(self) -> Any:
            self.tries += 1
            raise InputError("no watches left") if self.tries < 3 else ValueError("a bug")
            yield

    monkeypatch.setattr(watcher, "RETRY_SECONDS", 0.0)
    broken = Broken(tmp_path)
    with caplog.at_level(logging.INFO, "eul_serve.swap"):
        task = asyncio.create_task(Watcher(broken, asyncio.Event()).run())
        while broken.tries < 5:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert caplog.text.count("no watches left") == caplog.text.count("a bug") == 1


@given(st.floats(0.01, 3600.0), st.lists(st.tuples(st.floats(0.0, 100.0), st.booleans())), st.integers())
def test_a_wait_is_never_longer_than_a_poll_unless_there_is_trouble(
    poll: float, polls: list[tuple[float, bool]], seed: int
) -> None:
    pace, troubles = Pace(poll, random.Random(seed)), 0
    assert 0.0 <= pace.first() <= poll
    for seconds, read in polls:
        troubles = 0 if read and seconds <= poll else troubles + 1
        wait = pace.after(seconds, read=read)
        if not troubles:
            assert poll * (1.0 - JITTER) <= wait <= poll
        else:
            most = max(poll, min(poll * MOST_TIMES, MOST_SECONDS))
            assert min(poll * 2.0**troubles, most) / 2 <= wait <= most


def test_servers_that_start_together_do_not_poll_together() -> None:
    firsts = sorted(Pace(10.0, random.Random(seed)).first() for seed in range(1000))
    for second in range(10):
        share = sum(second <= first < second + 1 for first in firsts)
        assert 50 < share < 170, f"{share} of 1000 servers in second {second}"
