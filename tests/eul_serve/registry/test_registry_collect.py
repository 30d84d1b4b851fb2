"""What a collection removes, each reason for which something stays, and the deletion of a request."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eul_serve.audit.chain import Entry
from eul_serve.errors import BundleFormatError, BusyError, NotFoundError, RefusedError
from eul_serve.format import Bundle, Reference
from eul_serve.registry.chain import next_entry, place
from eul_serve.registry.collect import ORPHAN_SECONDS, Collection, Collector
from eul_serve.registry.local import LocalRegistry
from tests.eul_serve.registry_files import acts, alias_files

PlainBundle = Callable[..., Bundle]
DAY = 86400.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def aged(root: Path, seconds: float, part: str = "names") -> None:
    """Make everything below a part of a registry look as old as that."""
    for path in (root / part).rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - seconds,) * 2)


def files(root: Path) -> dict[str, bytes]:
    """All files of a registry but the locks, which are always empty."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.parent.name != "locks")
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def blobs(root: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (root / "blobs" / "sha256").iterdir()}


def digests(*bundles: Bundle) -> set[str]:
    return {entry.sha256 for bundle in bundles for entry in bundle.manifest.files.values()}


def reasons(done: Collection) -> dict[str, str | None]:
    return {one.reference: one.reason for one in (*done.kept, *done.removed)}


def test_what_nobody_needs_goes_with_its_files_and_signatures(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle, audit: Callable[[Path], None]
) -> None:
    old, new = plain_bundle(seed=1, statistics=True), plain_bundle(seed=2)
    registry.publish(old, "poems", with_statistics=True, signatures=[b'{"a":1}', b'{"b":2}'])
    registry.publish(new, "poems", "stable", signatures=[b'{"c":3}'])
    aged(root, 31 * DAY)
    done = Collector(registry, actor="ann").collect()
    assert [one.reference for one in done.removed] == [f"poems@{old.revision}"]
    assert reasons(done)[f"poems@{new.revision}"] == "aliased by poems:stable"
    assert blobs(root) == digests(new)
    assert done.blobs == 2  # weights and statistics; config and card are the other's too
    assert registry.revisions("poems") == [new.revision]
    assert registry.signatures("poems", old.revision) == ()
    assert registry.signatures("poems", new.revision) == (b'{"c":3}',)
    told = acts(root)[-1]
    assert (told["act"], told["name"], told["revision"], told["actor"]) == ("collect", "poems", old.revision, "ann")
    audit(root)
    again = Collector(registry).collect()
    assert (again.removed, again.blobs) == ((), 0)
    assert registry.publish(old, "poems").new  # collected is not deleted: it may come back


def test_each_reason_for_staying_has_its_words(registry: LocalRegistry, root: Path, plain_bundle: PlainBundle) -> None:
    aliased, held, claimed, left, young, gone = (plain_bundle(seed=seed) for seed in range(6))
    for bundle in (held, claimed, gone):
        registry.publish(bundle, "poems")
    registry.publish(left, "poems", "stable")
    registry.publish(aliased, "poems", "stable")
    registry.order("hold", held.revision, "case 17", "ann")
    aged(root, 31 * DAY)
    registry.publish(young, "poems")
    with registry.claims.claimed([claimed.revision]):
        done = Collector(registry).collect(dry_run=True)
    found = {reference.partition("@")[2]: reason for reference, reason in reasons(done).items()}
    since = registry.standing().held[held.revision].at
    assert found == {
        aliased.revision: "aliased by poems:stable",
        held.revision: f"held since {since}: case 17",
        claimed.revision: "claimed by a publication under way",
        left.revision: "behind poems:stable less than 30 days ago",
        young.revision: "published less than 30 days ago",
        gone.revision: None,
    }


def test_a_revision_stays_for_the_days_after_an_alias_left_it(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle
) -> None:
    left, now = plain_bundle(seed=1), plain_bundle(seed=2)
    registry.publish(left, "poems", "stable")
    registry.publish(now, "poems")
    first = Entry.from_line(alias_files(root, "poems", "stable")[-1].read_bytes())
    assert first is not None
    # As if the move had been 40 days ago.
    old = next_entry("promote", {"actor": None, "reason": None, "revision": now.revision}, first)
    at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - 40 * DAY))
    moved = Entry(old.number, at, old.act, old.facts, old.before)
    root.joinpath(*place(("names", "poems", "aliases", "stable"), moved.number)).write_bytes(moved.to_line())
    aged(root, 50 * DAY)
    for days, gone in ((41, []), (39, [f"poems@{left.revision}"])):
        done = Collector(LocalRegistry(root), keep_days=days).collect(dry_run=True)
        assert [one.reference for one in done.removed] == gone


def test_a_dry_run_says_the_same_as_the_run_and_writes_nothing(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle
) -> None:
    registry.publish(plain_bundle("r1", seed=1), "poems")
    registry.publish(plain_bundle("r2", seed=2), "poems", "stable")
    aged(root, 31 * DAY)
    before = files(root)
    dry = Collector(registry).collect(dry_run=True)
    dry_deletion = Collector(registry).delete_request("r1", "a reason", dry_run=True)
    assert files(root) == before
    assert (len(dry.removed), dry.blobs) == (len(dry_deletion.removed), dry_deletion.blobs) == (1, 1)
    done = Collector(registry).collect()
    assert (reasons(done), done.blobs) == (reasons(dry), dry.blobs)
    assert files(root) != before


def test_files_that_revisions_share_stay_with_the_last(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle
) -> None:
    bundle = plain_bundle(seed=1)
    registry.publish(bundle, "poems")
    registry.publish(bundle, "verse", "stable")
    aged(root, 31 * DAY)
    done = Collector(registry).collect()
    assert [one.reference for one in done.removed] == [f"poems@{bundle.revision}"]
    assert done.blobs == 0
    assert registry.names() == ["verse"]
    assert blobs(root) == digests(bundle)


def test_files_of_a_publication_that_was_cut_off_stay_for_a_day(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle
) -> None:
    kept, cut = plain_bundle(seed=1), plain_bundle(seed=2)
    registry.publish(kept, "poems", "stable")
    registry.publish(cut, "poems")
    (root / "names" / "poems" / "revisions" / f"{cut.revision.removeprefix('sha256:')}.json").unlink()
    aged(root, ORPHAN_SECONDS - 60, "blobs")
    assert Collector(registry).collect().blobs == 0
    assert blobs(root) == digests(kept, cut)
    aged(root, ORPHAN_SECONDS + 60, "blobs")
    assert Collector(registry).collect().blobs == 1
    assert blobs(root) == digests(kept)


def test_files_that_a_publisher_claims_stay_however_old(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle
) -> None:
    bundle = plain_bundle(seed=1)
    registry.publish(bundle, "poems")
    aged(root, 31 * DAY)
    aged(root, 31 * DAY, "blobs")
    weights = bundle.manifest.files["adapter_model.safetensors"].sha256
    with registry.claims.claimed([weights]):
        done = Collector(LocalRegistry(root)).collect()
    assert len(done.removed) == 1
    assert blobs(root) == {weights}


def test_a_damaged_manifest_or_alias_stops_a_collection(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle
) -> None:
    one, two = plain_bundle(seed=1), plain_bundle(seed=2)
    registry.publish(one, "poems")
    registry.publish(two, "poems", "stable")
    aged(root, 31 * DAY)
    before = files(root)
    manifest = root / "names" / "poems" / "revisions" / f"{one.revision.removeprefix('sha256:')}.json"
    for path in (manifest, alias_files(root, "poems", "stable")[0]):
        good = path.read_bytes()
        path.write_bytes(good.replace(b"sha256", b"sha512", 1))
        with pytest.raises(BundleFormatError):
            Collector(LocalRegistry(root)).collect()
        path.write_bytes(good)
        assert files(root) == before


def test_a_moves_time_that_is_none_stops_a_collection_in_words(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle
) -> None:
    one, two = plain_bundle(seed=1), plain_bundle(seed=2)
    registry.publish(one, "poems", "stable")
    registry.publish(two, "poems")
    first = Entry.from_line(alias_files(root, "poems", "stable")[-1].read_bytes())
    assert first is not None
    entry = Entry(2, "yesterday", "promote", {"actor": None, "reason": None, "revision": two.revision}, first.digest)
    root.joinpath(*place(("names", "poems", "aliases", "stable"), 2)).write_bytes(entry.to_line())
    aged(root, 31 * DAY)
    with pytest.raises(BundleFormatError, match="expected ISO 8601, found 'yesterday'"):
        Collector(LocalRegistry(root)).collect()


def test_a_registry_that_vanishes_between_two_looks_loses_nothing(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = plain_bundle(seed=1)
    registry.publish(bundle, "poems", "stable")
    aged(root, 31 * DAY, "blobs")
    collector, names, looks = Collector(registry), registry.names(), []

    def flicker() -> list[str]:
        looks.append(1)
        return names if len(looks) == 1 else []

    monkeypatch.setattr(registry, "names", flicker)
    assert collector.collect().blobs == 0
    assert blobs(root) == digests(bundle)


def test_a_request_is_deleted_with_all_that_covers_it_for_good(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle, audit: Callable[[Path], None]
) -> None:
    alone, fused, other = plain_bundle("r1", seed=1), plain_bundle("r1", "r2", seed=2), plain_bundle("r2", seed=3)
    registry.publish(alone, "poems", "stable")
    registry.publish(fused, "verse")
    registry.publish(other, "poems", "stable", allow_unforget="r1 was withdrawn")
    done = Collector(registry, actor="ann").delete_request("r1", "withdrawn, ticket 7")
    assert {one.reference for one in done.removed} == {f"poems@{alone.revision}", f"verse@{fused.revision}"}
    assert done.blobs == 2  # at once, though they are younger than a day
    assert blobs(root) == digests(other)
    assert registry.names() == ["poems"]
    order = registry.standing().deleted[alone.revision]
    assert (order.reason, order.actor) == ("withdrawn, ticket 7", "ann")
    for name in ("poems", "fresh"):
        with pytest.raises(RefusedError, match=r"was deleted on .* may not come back: withdrawn, ticket 7"):
            registry.publish(fused, name)
    with pytest.raises(RefusedError, match="was deleted on"):
        registry.rollback("poems", "stable", allow_unforget="a test")
    assert blobs(root) == digests(other)
    audit(root)
    assert Collector(registry).delete_request("r1", "again").removed == ()


def test_a_request_is_not_deleted_while_it_is_needed(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle
) -> None:
    one, two, free = plain_bundle("r1", seed=1), plain_bundle("r1", seed=2), plain_bundle("r1", seed=3)
    registry.publish(one, "poems", "stable")
    registry.publish(two, "poems")
    registry.publish(free, "poems")
    registry.order("hold", two.revision, "case 17")
    before = files(root)
    with pytest.raises(RefusedError) as failed:
        Collector(registry).delete_request("r1", "a reason")
    for words in ("request 'r1'", f"{one.revision} is aliased by poems:stable (move the alias)", "case 17",
                  f"{two.revision} is held", "`eul hold --release`", "nothing was removed"):  # fmt: skip
        assert words in str(failed.value)
    assert free.revision not in str(failed.value)
    assert files(root) == before
    with registry.claims.claimed([free.revision]), pytest.raises(RefusedError, match="claimed by a publication"):
        Collector(LocalRegistry(root)).delete_request("r1", "a reason")
    assert files(root) == before


def test_a_deletion_that_was_cut_off_is_finished_by_the_next_collection(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, kept = plain_bundle("r1", seed=1), plain_bundle("r2", seed=2)
    registry.publish(bundle, "poems")
    registry.publish(kept, "poems", "stable")
    with monkeypatch.context() as patch:
        patch.setattr(Collector, "_remove", lambda *_: None)
        Collector(registry).delete_request("r1", "a reason")
    assert registry.revisions("poems") == sorted([bundle.revision, kept.revision])
    done = Collector(registry).collect()  # though it is young
    assert [one.manifest.revision for one in done.removed] == [bundle.revision]
    assert blobs(root) == digests(kept)


def test_a_rollback_to_what_was_collected_is_not_found(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle
) -> None:
    old, new = plain_bundle(seed=1), plain_bundle(seed=2)
    registry.publish(old, "poems", "stable")
    registry.publish(new, "poems", "stable")
    aged(root, DAY)
    assert len(Collector(registry, keep_days=0).collect().removed) == 1
    with pytest.raises(NotFoundError, match=f"{old.revision}: not found"):
        registry.rollback("poems", "stable")
    assert registry.resolve(Reference.parse("poems")) == new.revision


def test_a_collection_that_takes_too_long_stops_between_two_removals(
    registry: LocalRegistry, root: Path, plain_bundle: PlainBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2, 3):
        registry.publish(plain_bundle(seed=seed), "poems")
    aged(root, 31 * DAY)
    real, ahead = time.monotonic, [0.0]
    monkeypatch.setattr(registry.claims, "_clock", lambda: real() + ahead[0])
    remove = Collector._remove_revision

    def slow(self: Collector, one: object, spared: object) -> None:
        remove(self, one, spared)  # type: ignore[arg-type]
        ahead[0] += 3600

    with monkeypatch.context() as patch:
        patch.setattr(Collector, "_remove_revision", slow)
        with pytest.raises(BusyError, match="run it again, it goes on"):
            Collector(registry).collect()
    assert len(registry.revisions("poems")) == 2
    assert len(Collector(registry).collect().removed) == 2
    aged(root, ORPHAN_SECONDS + 60, "blobs")
    Collector(LocalRegistry(root)).collect()
    assert blobs(root) == set()
