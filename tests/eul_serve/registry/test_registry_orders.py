"""Holds, bans and deletions: what stands after them, what they refuse, and that their past cannot be changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from eul_serve.errors import BannedError, BundleFormatError, InputError, NotFoundError, RefusedError
from eul_serve.format import Bundle, Reference
from eul_serve.registry.collect import Collector
from eul_serve.registry.local import LocalRegistry
from eul_serve.registry.orders import OrderAct
from tests.eul_serve.registry_files import acts

PlainBundle = Callable[..., Bundle]
ONE, TWO = ("sha256:" + digit * 64 for digit in "12")


@pytest.fixture
def made(registry: LocalRegistry, plain_bundle: PlainBundle) -> LocalRegistry:
    """A registry in which something was published."""
    registry.publish(plain_bundle(), "poems", "stable", actor="ann")
    return registry


@pytest.mark.parametrize(
    ("act", "end", "room"),
    [
        ("hold", "release", "held"),
        ("ban", "lift", "banned"),
        ("ban_signer", "lift_signer", "banned_signers"),
        ("delete", None, "deleted"),
    ],
)
def test_an_order_stands_until_it_is_ended(
    made: LocalRegistry, tmp_path: Path, act: OrderAct, end: OrderAct | None, room: str
) -> None:
    assert made.order(act, ONE, "a reason", "ann") is True
    assert made.order(act, ONE, "another reason", "bob") is False
    order = getattr(LocalRegistry(tmp_path / "registry").standing(), room)[ONE]
    assert (order.act, order.digest, order.reason, order.actor) == (act, ONE, "a reason", "ann")
    assert getattr(made.standing(), room).keys() == {ONE}
    if end is not None:
        assert made.order(end, TWO, "never stood") is False
        assert made.order(end, ONE, "over") is True
        assert getattr(made.standing(), room) == {}
    told = [(one["act"], one.get("digest"), one["reason"]) for one in acts(tmp_path / "registry") if "digest" in one]
    assert told == [(act, ONE, "a reason"), *([(end, ONE, "over")] if end else [])]


def test_orders_of_different_kinds_stand_beside_each_other(made: LocalRegistry) -> None:
    acts_given: tuple[OrderAct, ...] = ("hold", "ban", "ban_signer")
    for act in acts_given:
        made.order(act, ONE, "a reason")
    made.order("lift", ONE, "over")
    standing = made.standing()
    assert [sorted(room) for room in (standing.held, standing.banned, standing.banned_signers)] == [[ONE], [], [ONE]]


@pytest.mark.parametrize(("digest", "reason"), [("sha256:12", "a reason"), (ONE, ""), (ONE, " \n")])
def test_an_order_needs_a_digest_and_a_reason(made: LocalRegistry, tmp_path: Path, digest: str, reason: str) -> None:
    before = acts(tmp_path / "registry")
    for act in ("hold", "ban"):
        with pytest.raises(InputError):
            made.order(act, digest, reason)
    assert acts(tmp_path / "registry") == before
    assert made.standing().held == {}


def test_a_registry_that_is_not_there_takes_no_orders(registry: LocalRegistry, tmp_path: Path) -> None:
    for act in (lambda: registry.order("ban", ONE, "a reason"), registry.standing):
        with pytest.raises(NotFoundError, match="no registry there"):
            act()
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize(("act", "words"), [("ban", "is banned since"), ("delete", "was deleted on")])
def test_a_banned_or_deleted_revision_cannot_come_back(
    registry: LocalRegistry, plain_bundle: PlainBundle, act: OrderAct, words: str
) -> None:
    old, new = plain_bundle(seed=1), plain_bundle(seed=2)
    registry.publish(old, "poems", "stable")
    registry.publish(new, "poems", "stable")
    registry.order(act, old.revision, "it remembers")
    for attempt in (
        lambda: registry.publish(old, "poems"),
        lambda: registry.publish(old, "verse", "stable"),
        lambda: registry.publish(old, "poems", dry_run=True),
        lambda: registry.promote("poems", old.revision, "stable"),
        lambda: registry.promote("poems", old.revision, "fresh"),
        lambda: registry.rollback("poems", "stable"),
    ):
        with pytest.raises(RefusedError, match=f"{words}.*it remembers"):
            attempt()
    assert registry.resolve(Reference.parse("poems")) == new.revision
    assert registry.alias_names("poems") == ["stable"]
    assert registry.names() == ["poems"]


def test_a_ban_that_is_lifted_lets_a_revision_come_back(registry: LocalRegistry, plain_bundle: PlainBundle) -> None:
    old, new = plain_bundle(seed=1), plain_bundle(seed=2)
    registry.publish(old, "poems", "stable")
    registry.publish(new, "poems", "stable")
    registry.order("ban", old.revision, "it remembers")
    registry.order("lift", old.revision, "measured anew")
    assert registry.rollback("poems", "stable") == old.revision


def test_a_publication_that_waits_for_a_deletion_is_refused(
    registry: LocalRegistry, plain_bundle: PlainBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, bundle = plain_bundle("r1", seed=1), plain_bundle("r1", "r2", seed=2)
    registry.publish(kept, "poems", "stable")
    registry.publish(bundle, "poems")
    waiting, deleted = threading.Event(), threading.Event()

    def sleep(_: float) -> None:
        waiting.set()
        assert deleted.wait(60)

    other = LocalRegistry(registry.store._tree.root)  # type: ignore[attr-defined]  # a directory's
    monkeypatch.setattr(registry.claims, "_sleep", sleep)
    found: list[BaseException] = []

    def publish() -> None:
        try:
            registry.publish(bundle, "poems")
        except BaseException as error:
            found.append(error)

    # The publisher has looked at the orders, and waits with its claim for a collector that then deletes.
    thread = threading.Thread(target=publish)
    with other.claims.collecting():
        thread.start()
        assert waiting.wait(60)
        other.order("delete", bundle.revision, "withdrawn")
    deleted.set()
    thread.join()
    assert [type(error) for error in found] == [BannedError]


def test_a_hold_waits_for_a_collector_that_has_read_its_orders(made: LocalRegistry, tmp_path: Path) -> None:
    waits: list[float] = []
    collecting = Collector(LocalRegistry(tmp_path / "registry"))._registry.claims.collecting()
    collecting.__enter__()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        assert made.standing().held == {}
        collecting.__exit__(None, None, None)

    made.claims._sleep = sleep
    assert made.order("hold", ONE, "a reason") is True
    assert len(waits) == 1


def test_four_threads_that_order_at_once_are_all_heard(made: LocalRegistry, tmp_path: Path) -> None:
    digests = ["sha256:" + f"{number:064x}" for number in range(12)]

    def order(mine: list[str]) -> None:
        registry = LocalRegistry(tmp_path / "registry")
        for digest in mine:
            assert registry.order("ban", digest, "a reason")

    threads = [threading.Thread(target=order, args=(digests[part::4],)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.standing().banned.keys() == set(digests)


def test_an_order_that_was_changed_or_is_unknown_stops_everything(
    made: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    made.order("ban", ONE, "a reason")
    path = tmp_path / "registry" / "orders" / "0000000001.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"a reason", b"a season"))
    fresh = LocalRegistry(tmp_path / "registry")
    with pytest.raises(BundleFormatError, match=r"orders/0000000001\.json was changed"):
        fresh.standing()
    with pytest.raises(BundleFormatError):
        fresh.publish(plain_bundle(seed=3), "verse")
    assert fresh.names() == ["poems"]
    path.write_bytes(good)
    entry = json.loads(good)
    assert entry["act"] == "ban"
    from eul_serve.registry.chain import next_entry

    path.write_bytes(next_entry("pardon", entry["facts"], None).to_line())
    with pytest.raises(BundleFormatError, match="'pardon' is no order; use a newer eul"):
        LocalRegistry(tmp_path / "registry").standing()
