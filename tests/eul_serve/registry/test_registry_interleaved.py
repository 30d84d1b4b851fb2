"""Two clients of one registry, where one does a whole act between two operations of the other: what the model found."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest

from eul_serve.format import Bundle, Reference
from eul_serve.registry.stored import StoredRegistry
from tests.eul_serve.registry.model.interrupted import interrupted
from tests.eul_serve.registry.model.memory_store import Fault, MemoryStore, Place

PlainBundle = Callable[..., Bundle]
POEMS = Reference.parse("poems")


class Two:
    """Two clients of one place."""

    def __init__(self) -> None:
        self.place = Place()
        self.other = StoredRegistry(MemoryStore(self.place))

    def one(self, before: str, act: Callable[[], object], fault: Fault | None = None) -> StoredRegistry:
        """Return a client that is interrupted before an operation."""
        return StoredRegistry(MemoryStore(self.place, 1, interrupted(before, act, fault)))


@pytest.fixture
def two() -> Two:
    return Two()


def test_two_that_roll_back_in_the_same_second_go_back_by_two(two: Two, plain_bundle: PlainBundle) -> None:
    bundles = [plain_bundle(seed=seed) for seed in range(3)]
    for bundle in bundles:
        two.other.publish(bundle, "poems", "stable")
    one = two.one("create names/poems/aliases/", lambda: two.other.rollback("poems", "stable"))
    with mock.patch("eul_serve.registry.chain.utc_now", lambda _: "2026-01-01T00:00:00+00:00"):
        assert one.rollback("poems", "stable") == bundles[0].revision
    assert two.other.resolve(POEMS) == bundles[0].revision


def test_of_two_that_order_the_same_in_the_same_second_one_changed_it(two: Two, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    two.other.publish(bundle, "poems")
    first: list[bool] = []
    one = two.one("create orders/", lambda: first.append(two.other.order("ban", bundle.revision, "a test")))
    with mock.patch("eul_serve.registry.chain.utc_now", lambda _: "2026-01-01T00:00:00+00:00"):
        second = one.order("ban", bundle.revision, "a test")
    assert (first, second) == ([True], False)
