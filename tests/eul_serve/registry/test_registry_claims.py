"""Publishers and collectors beside each other: whoever comes later sees the other, and what a kill leaves grows old."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from eul_serve.errors import BundleFormatError, BusyError, NotFoundError
from eul_serve.format import Bundle, Reference
from eul_serve.registry.claims import COLLECT_SECONDS, PUBLISH_SECONDS, Claims
from eul_serve.registry.collect import Collector
from eul_serve.registry.directory_store import DirectoryStore
from eul_serve.registry.local import LocalRegistry
from tests.eul_serve.registry_files import acts

PlainBundle = Callable[..., Bundle]
ONE, TWO = ("sha256:" + digit * 64 for digit in "12")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "registry")


def aged(root: Path, seconds: float) -> None:
    """Make every claim look as old as that."""
    for path in (root / "claims").iterdir():
        made = time.time() - seconds
        os.utime(path, (made, made))


def leave_claim(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, *, collector: bool) -> None:
    """Leave what a killed client leaves."""
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "remove", lambda *_: None)
        mine = Claims(store)
        with mine.collecting() if collector else mine.claimed([ONE]):
            pass


def test_a_collector_spares_what_was_claimed_before_it_looked(store: DirectoryStore) -> None:
    mine = Claims(store)
    with mine.claimed([TWO, ONE]), mine.collecting() as spared:
        assert spared() == {ONE, TWO}
    with mine.collecting() as spared:
        assert spared() == frozenset()


def test_a_publisher_waits_until_a_collector_has_ended(store: DirectoryStore) -> None:
    waits: list[float] = []
    collecting = Claims(store).collecting()
    collecting.__enter__()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            collecting.__exit__(None, None, None)

    with Claims(store, sleep).claimed([ONE]):
        assert len(waits) == 3


def test_a_dry_collection_holds_nobody_up_and_writes_nothing(store: DirectoryStore, tmp_path: Path) -> None:
    def sleep(_: float) -> None:
        raise AssertionError("waited for a dry run")

    with Claims(store).collecting(dry_run=True) as spared:
        assert spared() == frozenset()
        assert not (tmp_path / "registry" / "claims").exists()
        with Claims(store, sleep).claimed([ONE]):
            pass


def test_what_a_killed_publisher_left_is_spared_for_a_day_and_then_removed(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_claim(store, monkeypatch, collector=False)
    root = tmp_path / "registry"
    aged(root, PUBLISH_SECONDS - 60)
    with Claims(store).collecting() as spared:
        assert spared() == {ONE}
    aged(root, PUBLISH_SECONDS + 60)
    with Claims(store).collecting(dry_run=True) as spared:
        assert spared() == frozenset()
    assert len(list((root / "claims").iterdir())) == 1  # a dry run leaves even that
    with Claims(store).collecting() as spared:
        assert spared() == frozenset()
    assert list((root / "claims").iterdir()) == []


def test_a_killed_collector_holds_publishers_up_for_a_quarter_of_an_hour(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_claim(store, monkeypatch, collector=True)
    aged(tmp_path / "registry", COLLECT_SECONDS - 60)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        aged(tmp_path / "registry", COLLECT_SECONDS + 60)

    with Claims(store, sleep).claimed([ONE]):
        assert len(waits) == 1


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the clock of this process run ahead."""
    ahead = [0.0]
    real = time.monotonic
    monkeypatch.setattr("eul_serve.registry.claims.time.monotonic", lambda: real() + ahead[0])
    return lambda seconds: ahead.__setitem__(0, ahead[0] + seconds)


def test_a_collector_stops_long_before_publishers_stop_waiting(
    store: DirectoryStore, later: Callable[[float], None]
) -> None:
    with Claims(store).collecting() as spared:
        spared()
        later(COLLECT_SECONDS / 2 + 1)
        with pytest.raises(BusyError, match="run it again, it goes on"):
            spared()


def test_a_publication_that_took_long_stops_before_a_collector_passes_its_claim_by(
    store: DirectoryStore, later: Callable[[float], None]
) -> None:
    with Claims(store).claimed([ONE]) as claim:
        claim()
        later(PUBLISH_SECONDS / 2 + 1)
        with pytest.raises(BusyError, match="run it again"):
            claim()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"digests":7}', b"\xff"])
def test_a_claim_that_cannot_be_read_stops_both_until_it_is_old(
    store: DirectoryStore, tmp_path: Path, content: bytes
) -> None:
    store.create(("claims", "x.json"), content)
    with pytest.raises(BundleFormatError, match=r"claims/x\.json is no claim"), Claims(store).claimed([ONE]):
        pass
    with pytest.raises(BundleFormatError, match="remove it"), Claims(store).collecting():
        pass
    aged(tmp_path / "registry", PUBLISH_SECONDS + 1)
    with Claims(store).claimed([ONE]):
        pass


def test_no_act_on_a_registry_that_is_not_there_makes_a_directory(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path / "registry")
    for act in (
        lambda: registry.promote("poems", ONE, "stable"),
        lambda: registry.rollback("poems", "stable"),
        lambda: registry.order("hold", ONE, "a test"),
        Collector(registry).collect,
        lambda: Collector(registry).delete_request("r1", "a test"),
    ):
        with pytest.raises(NotFoundError, match="no registry there"):
            act()
        assert not (tmp_path / "registry").exists()


class Noted(threading.Thread):
    """A thread whose error is kept."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self.work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self.error = error


def test_publishers_and_collectors_at_once_lose_nothing(
    tmp_path: Path, plain_bundle: PlainBundle, audit: Callable[[Path], None]
) -> None:
    root = tmp_path / "registry"
    bundles = [plain_bundle(seed=seed) for seed in range(4)]
    LocalRegistry(root).publish(bundles[0], "poems", "stable")
    done = threading.Event()

    def publish(number: int) -> None:
        registry = LocalRegistry(root)
        for turn in range(6):
            name, bundle = f"poems{number}", bundles[(number + turn) % len(bundles)]
            registry.publish(bundle, name, "stable")
            assert registry.resolve(Reference.parse(name)) == bundle.revision

    def collect() -> None:
        while not done.is_set():
            # Nothing is too young, so whatever stays does so by an alias or a claim alone.
            Collector(LocalRegistry(root), keep_days=0).collect()

    collector = Noted(collect)
    publishers = [Noted(partial(publish, number)) for number in range(3)]
    for thread in (collector, *publishers):
        thread.start()
    for thread in publishers:
        thread.join()
    done.set()
    collector.join()
    assert [thread.error for thread in (collector, *publishers)] == [None] * 4
    assert "collect" in {act["act"] for act in acts(root)}
    audit(root)
    assert list((root / "claims").iterdir()) == []
