"""Two clients of one registry, where one does a whole act between two operations of the other: what the model found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from unittest import mock

import pytest

from eul_serve.errors import BusyError, CapacityError, NotFoundError, RefusedError
from eul_serve.format import Bundle, Reference
from eul_serve.registry.claims import COLLECT_SECONDS, PUBLISH_SECONDS, Claims
from eul_serve.registry.collect import Collector
from eul_serve.registry.reader import manifest_key
from eul_serve.registry.stored import StoredRegistry
from tests.eul_serve.registry.model.interrupted import interrupted
from tests.eul_serve.registry.model.judge import SIGNATURE
from tests.eul_serve.registry.model.memory_store import Change, Died, Fault, MemoryStore, Place

PlainBundle = Callable[..., Bundle]
DAY = 24 * 3600.0
POEMS = Reference.parse("poems")


class Two:
    """Two clients of one place."""

    def __init__(self) -> None:
        self.place = Place()
        self.other = StoredRegistry(MemoryStore(self.place))

    def one(
        self, before: str, act: Callable[[], object], fault: Fault | None = None, *, after: int = 0
    ) -> StoredRegistry:
        """Return a client that is interrupted before an operation."""
        return StoredRegistry(MemoryStore(self.place, 1, interrupted(before, act, fault, after=after)))


@pytest.fixture
def two() -> Two:
    return Two()


def test_two_that_roll_back_in_the_same_second_go_back_by_two(two: Two, plain_bundle: PlainBundle) -> None:
    bundles = [plain_bundle(seed=seed) for seed in range(3)]
    for bundle in bundles:
        two.other.publish(bundle, "poems", "stable")
    one = two.one("create names/poems/aliases/", lambda: two.other.rollback("poems", "stable"))
    with mock.patch("eul_serve.registry.chain.utc_now", return_value="2026-01-01T00:00:00+00:00"):
        assert one.rollback("poems", "stable") == bundles[0].revision
    assert two.other.resolve(POEMS) == bundles[0].revision


def test_of_two_that_order_the_same_in_the_same_second_one_changed_it(two: Two, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    two.other.publish(bundle, "poems")
    first: list[bool] = []
    one = two.one("create orders/", lambda: first.append(two.other.order("ban", bundle.revision, "a test")))
    with mock.patch("eul_serve.registry.chain.utc_now", return_value="2026-01-01T00:00:00+00:00"):
        second = one.order("ban", bundle.revision, "a test")
    assert (first, second) == ([True], False)


def spoil(place: Place, bundle: Bundle) -> None:
    """Damage the manifest of a bundle, as a bad disk would."""
    key = manifest_key("poems", bundle.revision)
    place.records[key] = b"{}", place.records[key][1]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_publisher_never_removes_what_another_has_published(plain_bundle: PlainBundle, damaged: bool) -> None:
    bundle, more = plain_bundle(), plain_bundle(seed=1)
    interruptions: list[int] = []
    for after in range(1000):
        two = Two()
        two.other.publish(more, "poems")
        if damaged:
            two.other.publish(bundle, "poems", "stable")
            spoil(two.place, bundle)
        gone: list[Change] = []

        def note(change: Change, gone: list[Change] = gone) -> None:
            if change.after is None:
                gone.append(change)

        def act(two: Two = two, note: Callable[[Change], None] = note, after: int = after) -> None:
            interruptions.append(after)
            two.other.claims._sleep = stop
            with suppress(Stopped):
                two.other.publish(bundle, "poems", "stable")
                two.place.watch = note

        two.one("", act, after=after).publish(bundle, "poems", "stable")
        assert {change.key[0] for change in gone} <= {"claims"}
        assert two.other.resolve(POEMS) == bundle.revision
        if after not in interruptions:
            break
    assert len(interruptions) > 15


class Stopped(Exception):
    """Somebody waits."""


def stop(_: float) -> None:
    raise Stopped


def test_of_two_that_repair_one_waits(two: Two, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    two.other.publish(bundle, "poems", "stable")
    spoil(two.place, bundle)
    two.other.claims._sleep = stop

    def act() -> None:
        with pytest.raises(Stopped):
            two.other.publish(bundle, "poems", "stable")

    two.one("remove names/", act).publish(bundle, "poems", "stable")
    assert two.other.resolve(POEMS) == bundle.revision


def test_a_killed_repairer_stops_the_next_for_a_quarter_of_an_hour(two: Two, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    two.other.publish(bundle, "poems", "stable")
    spoil(two.place, bundle)
    with pytest.raises(Died):
        two.one("remove names/", lambda: None, "die before").publish(bundle, "poems")
    two.other.claims._sleep = lambda _: setattr(two.place, "now", two.place.now + COLLECT_SECONDS + 1)
    two.other.publish(bundle, "poems")
    assert two.place.now == COLLECT_SECONDS + 1
    assert two.other.resolve(POEMS) == bundle.revision


def test_a_repairer_that_was_too_slow_removes_nothing(two: Two, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    two.other.publish(bundle, "poems", "stable")
    spoil(two.place, bundle)
    one = two.one("list claims", lambda: None)
    ahead = iter([0.0, 0.0, COLLECT_SECONDS])
    one.claims = Claims(one.store, stop, lambda: next(ahead))
    with pytest.raises(BusyError, match="the repair took too long"):
        one.publish(bundle, "poems")
    assert manifest_key("poems", bundle.revision) in two.place.records


def test_a_store_that_cannot_be_read_for_a_moment_loses_no_manifest(two: Two, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    two.other.publish(bundle, "poems", "stable")
    with pytest.raises(CapacityError):
        two.one("read names/poems/revisions/", lambda: None, "refuse").publish(bundle, "poems", "stable")
    assert two.other.resolve(POEMS) == bundle.revision


def test_a_publication_that_hung_for_a_day_names_nothing_that_was_collected(
    two: Two, plain_bundle: PlainBundle
) -> None:
    bundle = plain_bundle()
    two.other.publish(plain_bundle(seed=1), "poems", "stable")

    def hang() -> None:
        two.place.now += 2 * PUBLISH_SECONDS
        assert Collector(two.other).collect().blobs > 0

    one = two.one("create log/", hang)
    one.claims = Claims(one.store, clock=lambda: two.place.now)
    with pytest.raises(BusyError, match="more than half a day"):
        one.publish(bundle, "poems", "stable")
    assert bundle.revision not in two.other.revisions("poems")


@pytest.mark.parametrize("act", ["publish", "promote", "rollback"])
def test_a_ban_that_comes_while_an_alias_is_moved_stops_the_move(two: Two, plain_bundle: PlainBundle, act: str) -> None:
    bundle, more = plain_bundle(), plain_bundle(seed=1)
    two.other.publish(bundle, "poems", "stable")
    two.other.publish(more, "poems", "stable")
    one = two.one("create log/", lambda: two.other.order("ban", bundle.revision, "a test"))
    acts: dict[str, Callable[[], object]] = {
        "publish": lambda: one.publish(bundle, "poems", "stable"),
        "promote": lambda: one.promote("poems", bundle.revision, "stable"),
        "rollback": lambda: one.rollback("poems", "stable"),
    }
    with pytest.raises(RefusedError, match="is banned"):
        acts[act]()
    assert two.other.resolve(POEMS) == more.revision


@pytest.mark.parametrize("act", ["publish", "promote", "rollback"])
def test_an_alias_whose_target_is_collected_after_it_was_moved_on_is_looked_at_again(
    two: Two, plain_bundle: PlainBundle, act: str
) -> None:
    first, bundle, more, last = (plain_bundle(seed=seed) for seed in range(4))
    for one_bundle in (first, bundle, more):
        two.other.publish(one_bundle, "poems", "stable")

    def move_on() -> None:
        two.other.rollback("poems", "stable")
        if act != "rollback":
            two.other.publish(last, "poems", "stable")
        two.place.now += DAY
        Collector(two.other, keep_days=0.0).collect()

    manifest = f"read {'/'.join(manifest_key('poems', more.revision))}"
    one = two.one(manifest, move_on)
    if act == "rollback":
        with pytest.raises(NotFoundError, match=f"{first.revision}: not found"):
            one.rollback("poems", "stable")  # a second step back, to what was collected too
        assert two.other.resolve(POEMS) == bundle.revision
        return
    two.other.order("hold", bundle.revision, "a test")
    if act == "publish":
        one.publish(bundle, "poems", "stable")
    else:
        one.promote("poems", bundle.revision, "stable")
    assert two.other.resolve(POEMS) == bundle.revision


@pytest.mark.parametrize("act", ["collect", "delete"])
def test_two_collectors_are_in_no_others_way(plain_bundle: PlainBundle, act: str) -> None:
    bundles, alone = [plain_bundle("r1", seed=seed) for seed in range(2)], plain_bundle("r1", seed=2)
    interruptions: list[int] = []
    for after in range(1000):
        two = Two()
        for bundle in bundles:
            two.other.publish(bundle, "poems")
        two.other.publish(alone, "songs")
        two.place.now += DAY

        def collect(two: Two = two, after: int = after) -> None:
            interruptions.append(after)
            Collector(two.other, keep_days=0.0).collect()

        mine = Collector(two.one("", collect, after=after), keep_days=0.0)
        _ = mine.collect() if act == "collect" else mine.delete_request("r1", "a test")
        assert two.other.names() == []
        assert two.place.blobs == {}
        if after not in interruptions:
            break
    assert len(interruptions) > 30


def test_a_collector_that_is_killed_leaves_no_revision_without_its_signatures(plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    for after in range(1000):
        two = Two()
        two.other.publish(bundle, "poems", signatures=[SIGNATURE])
        two.place.now += DAY
        with suppress(Died):
            Collector(two.one("", lambda: None, "die before", after=after), keep_days=0.0).collect()
            break
        if two.other.names():
            assert two.other.signatures("poems", bundle.revision) == (SIGNATURE,)
    assert after > 15


def test_a_collector_that_waited_too_long_for_the_log_removes_nothing(two: Two, plain_bundle: PlainBundle) -> None:
    two.other.publish(plain_bundle(), "poems")
    two.place.now += DAY
    one = two.one("create log/", lambda: setattr(two.place, "now", two.place.now + COLLECT_SECONDS))
    one.claims = Claims(one.store, clock=lambda: two.place.now)
    with pytest.raises(BusyError, match="run it again"):
        Collector(one, keep_days=0.0).collect()
    assert two.other.names() == ["poems"]


def test_a_claim_whose_answer_was_lost_is_not_left(two: Two, plain_bundle: PlainBundle) -> None:
    two.other.publish(plain_bundle(), "poems")
    with pytest.raises(BusyError, match="lost on purpose"):
        Collector(two.one("create claims/", lambda: None, "lose the answer")).collect()
    assert two.other.store.list("claims") == []
