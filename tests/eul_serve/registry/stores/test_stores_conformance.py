"""What every store must do, whatever it is made of."""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import BundleFormatError, NotFoundError
from eul_serve.format import FileEntry
from eul_serve.registry.store import MAX_RECORD, Key
from tests.eul_serve.registry.stores.places import DAMAGES, PLACES, Open

MIB = 1 << 20
SIZES = (0, 1, MIB + 1, 20 * MIB)
CLIENTS, RACERS, RACES = 3, 8, 3
WAIT_SECONDS = 20
RECORD: Key = ("names", "poems", "aliases", "stable", "1.json")


@pytest.fixture(params=list(PLACES), scope="module")
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, Open]]:
    """The kind of a place, and what opens it; one place serves a whole file, so tests use names of their own."""
    with PLACES[request.param]() as opened:
        yield request.param, opened


@pytest.fixture
def client(place: tuple[str, Open]) -> Iterator[Open]:
    """Opens an empty place."""
    with PLACES[place[0]]() as opened:
        yield opened


def blob(size: int, seed: int = 0) -> tuple[bytes, FileEntry]:
    """Random bytes and what they are called."""
    data = random.Random(f"{size} {seed}").randbytes(size)
    return data, FileEntry(sha256=f"sha256:{hashlib.sha256(data).hexdigest()}", size=size)


def source(data: bytes, *, until: int | None = None) -> Callable[[], Iterator[bytes]]:
    """A source of some bytes, which breaks off after `until` of them."""

    def opened() -> Iterator[bytes]:
        for start in range(0, len(data), MIB):
            if until is not None and start >= until:
                raise FileNotFoundError("the disk went away")
            yield data[start : start + MIB]

    return opened


def test_a_missing_record_is_none(client: Open) -> None:
    store = client()
    assert store.read(RECORD) is None
    assert store.age(RECORD) is None
    assert store.list() == []
    assert store.list("names", "poems") == []


def test_a_record_is_made_once(client: Open) -> None:
    store, other = client(), client()
    assert store.create(RECORD, b'{"a":1}') is True
    assert other.create(RECORD, b'{"a":1}') is True
    assert other.create(RECORD, b'{"a":2}') is False
    assert store.create(RECORD, b"") is False
    assert (store.read(RECORD), other.read(RECORD)) == (b'{"a":1}', b'{"a":1}')


def test_an_empty_record_is_a_record(client: Open) -> None:
    store = client()
    assert store.create(RECORD, b"") is True
    assert store.read(RECORD) == b""
    assert store.create(RECORD, b"x") is False


def test_of_racing_clients_one_wins(client: Open) -> None:
    stores = [client() for _ in range(CLIENTS)]
    for race in range(RACES):
        key = ("log", f"{race}.json")
        start = Barrier(RACERS)

        def act(racer: int, key: Key = key, start: Barrier = start) -> bool:
            start.wait()
            return stores[racer % CLIENTS].create(key, b"%d" % racer * 1000)

        with ThreadPoolExecutor(RACERS) as pool:
            won = list(pool.map(act, range(RACERS)))
        assert won.count(True) == 1
        assert [store.read(key) for store in stores] == [b"%d" % won.index(True) * 1000] * CLIENTS


def test_a_record_of_the_largest_size_is_kept_whole(client: Open) -> None:
    store, data = client(), blob(MAX_RECORD)[0]
    assert store.create(RECORD, data) is True
    assert store.read(RECORD) == data


def test_a_larger_record_is_refused(client: Open) -> None:
    def make_and_read() -> None:
        client().create(RECORD, bytes(MAX_RECORD + 1))
        client().read(RECORD)

    with pytest.raises(BundleFormatError, match=str(MAX_RECORD)):
        make_and_read()


def test_a_listing_names_records_and_folders_and_goes_no_deeper(client: Open) -> None:
    store, other = client(), client()
    for key in (("registry.json",), ("log", "2.json"), ("log", "10.json"), ("log", "deep", "er", "1.json")):
        assert store.create(key, b"{}")
    assert other.list() == ["log", "registry.json"]
    assert other.list("log") == ["10.json", "2.json", "deep"]
    assert other.list("log", "deep") == ["er"]
    assert other.list("lo") == []


def test_a_name_is_not_the_beginning_of_another(client: Open) -> None:
    store = client()
    store.create(("names", "po", "1.json"), b"1")
    store.create(("names", "poems", "2.json"), b"2")
    assert store.list("names") == ["po", "poems"]
    assert store.list("names", "po") == ["1.json"]


def test_removing_may_be_repeated_and_frees_the_name(client: Open) -> None:
    store, other = client(), client()
    store.create(RECORD, b"1")
    for _ in range(2):
        other.remove(RECORD)
        assert (store.read(RECORD), store.age(RECORD)) == (None, None)
        assert store.list(*RECORD[:-1]) == []
    assert store.create(RECORD, b"2") is True
    assert other.read(RECORD) == b"2"


def test_a_record_ages(client: Open) -> None:
    store = client()
    store.create(RECORD, b"1")
    first = store.age(RECORD)
    assert first is not None
    assert 0 <= first < WAIT_SECONDS
    deadline = time.monotonic() + WAIT_SECONDS
    while (store.age(RECORD) or 0.0) <= first:
        assert time.monotonic() < deadline, "it stays as old as it is"
        time.sleep(0.05)


@pytest.mark.parametrize("size", SIZES)
def test_a_blob_comes_back_as_it_was(client: Open, size: int) -> None:
    store, (data, entry) = client(), blob(size)
    assert store.holds("poems", entry) is False
    store.put("poems", entry, source(data))
    assert client().holds("poems", entry) is True
    assert b"".join(client().chunks("poems", entry)) == data


def test_a_blob_of_another_size_is_not_held(client: Open) -> None:
    store, (data, entry) = client(), blob(1000)
    store.put("poems", entry, source(data))
    assert store.holds("poems", FileEntry(sha256=entry.sha256, size=999)) is False


def test_a_missing_blob_is_named(client: Open) -> None:
    with pytest.raises(NotFoundError, match=blob(10)[1].sha256):
        list(client().chunks("poems", blob(10)[1]))


@pytest.mark.parametrize("size", [3 * MIB, 40 * MIB])
def test_a_source_that_breaks_off_leaves_nothing(client: Open, size: int) -> None:
    store, (data, entry) = client(), blob(size)
    with pytest.raises(FileNotFoundError, match="the disk went away"):
        store.put("poems", entry, source(data, until=size - MIB))
    assert_nothing_there(client, entry)
    store.put("poems", entry, source(data))
    assert b"".join(store.chunks("poems", entry)) == data


@pytest.mark.parametrize("size", [1000, 20 * MIB])
@pytest.mark.parametrize("change", ["a byte", "shorter", "longer"])
def test_other_bytes_than_those_of_the_digest_leave_nothing(client: Open, size: int, change: str) -> None:
    data, entry = blob(size)
    wrong = {"a byte": data[:-1] + bytes([data[-1] ^ 1]), "shorter": data[:-1], "longer": data + b"x"}[change]
    with pytest.raises(BundleFormatError, match=entry.sha256):
        client().put("poems", entry, source(wrong))
    assert_nothing_there(client, entry)


def assert_nothing_there(client: Open, entry: FileEntry) -> None:
    """A new client sees nothing of a blob."""
    store = client()
    assert store.holds("poems", entry) is False
    assert list(store.blobs(["poems"])) == []
    with pytest.raises(NotFoundError):
        list(store.chunks("poems", entry))


@pytest.mark.parametrize("damage", [b"", b"short", bytes(1000), bytes(2000)])
@pytest.mark.parametrize("kind", list(DAMAGES))
def test_putting_over_a_damaged_blob_repairs_it(kind: str, damage: bytes) -> None:
    with PLACES[kind]() as opened:
        store, (data, entry) = opened(), blob(1000)
        store.put("poems", entry, source(data))
        DAMAGES[kind](store, entry, damage)
        assert b"".join(opened().chunks("poems", entry)) == damage
        assert opened().holds("poems", entry) is False or len(damage) == len(data)
        store.put("poems", entry, source(data))
        assert opened().holds("poems", entry) is True
        assert b"".join(opened().chunks("poems", entry)) == data


def test_blobs_are_listed_with_their_ages_and_dropped_again(client: Open) -> None:
    store = client()
    entries = [blob(10, seed)[1] for seed in range(3)]
    assert list(store.blobs(["poems"])) == []
    for seed, entry in enumerate(entries):
        store.put("poems", entry, source(blob(10, seed)[0]))
    found = list(client().blobs(["poems"]))
    assert {digest for _, digest, _ in found} == {entry.sha256 for entry in entries}
    assert len(found) == len(entries)
    assert all(0 <= age < WAIT_SECONDS for _, _, age in found)
    assert client().list("names") == []
    for name, digest, _ in found[1:] * 2:
        store.drop(name, digest)
    assert [digest for _, digest, _ in client().blobs(["poems"])] == [found[0][1]]


def test_two_clients_may_put_one_blob_at_once(client: Open) -> None:
    data, entry = blob(40 * MIB)
    start = Barrier(2)

    def act(_: int) -> None:
        store = client()
        start.wait()
        store.put("poems", entry, source(data))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(act, range(2)))
    assert client().holds("poems", entry) is True
    assert b"".join(client().chunks("poems", entry)) == data


def test_a_reader_may_stop_in_the_middle(client: Open) -> None:
    store, (data, entry) = client(), blob(20 * MIB)
    store.put("poems", entry, source(data))
    reader = store.chunks("poems", entry)
    assert data.startswith(next(reader))
    reader.close()  # type: ignore[attr-defined]
    assert b"".join(store.chunks("poems", entry)) == data


FOLDERS = st.lists(st.sampled_from(["a", "b.c", "b", "d-1_x"]), min_size=0, max_size=2)
RECORDS = st.builds(
    lambda folders, name: (*folders, name), FOLDERS, st.sampled_from(["1.json", "10.json", "2.json", "a.json"])
)
ACTS = st.one_of(
    st.tuples(st.just("create"), RECORDS, st.sampled_from([b"", b"1", b"2"])),
    st.tuples(st.sampled_from(["read", "remove", "age"]), RECORDS, st.just(b"")),
    st.tuples(st.just("list"), FOLDERS.map(tuple), st.just(b"")),
)


@settings(max_examples=25)
@given(acts=st.lists(ACTS, max_size=25))
def test_any_acts_do_what_they_do_to_a_dictionary(place: tuple[str, Open], acts: list[tuple[str, Key, bytes]]) -> None:
    store, model, root = place[1](), dict[Key, bytes](), f"x{secrets.token_hex(8)}"
    for act, path, data in acts:
        key = (root, *path)
        if act == "create":
            assert store.create(key, data) is (model.setdefault(key, data) == data)
        elif act == "read":
            assert store.read(key) == model.get(key)
        elif act == "age":
            assert (store.age(key) is None) is (key not in model)
        elif act == "remove":
            store.remove(key)
            model.pop(key, None)
        else:
            below = {one[len(key)] for one in model if len(one) > len(key) and one[: len(key)] == key}
            assert store.list(*key) == sorted(below)
