"""The OCI store against Debian's docker-registry, and with oras on the other side."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from eul_serve.errors import BundleFormatError, InputError, RefusedError
from eul_serve.format import Bundle, FileEntry, Manifest, read_bundle
from eul_serve.registry.blobs import read_chunks
from eul_serve.registry.oci import OciStore
from eul_serve.registry.oci.blobs import Blobs
from eul_serve.registry.oci.lock import Lock
from eul_serve.registry.oci.place import Place
from eul_serve.registry.oci.repository import Repository
from eul_serve.registry.oci.wire import Wire

from .oci_place import DELAY, HOLD, oci_place, program, running_registry
from .oci_proxy import CuttingProxy

pytestmark = pytest.mark.tools
Open = Callable[[], OciStore]
SIGNATURE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@pytest.fixture(scope="module")
def opened() -> Iterator[Open]:
    with oci_place() as place:
        yield place


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A bundle's name of this test's own."""
    return "b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


def oras(*line: str, cwd: Path | None = None) -> str:
    found = subprocess.run([program("oras"), *line], capture_output=True, text=True, timeout=60, check=False, cwd=cwd)
    assert found.returncode == 0, found.stderr
    return found.stdout


def entry_of(data: bytes) -> FileEntry:
    return FileEntry(sha256="sha256:" + hashlib.sha256(data).hexdigest(), size=len(data))


def revision_key(name: str, bundle: Bundle) -> tuple[str, ...]:
    return ("names", name, "revisions", bundle.revision.removeprefix("sha256:") + ".json")


def publish(store: OciStore, bundle: Bundle, name: str, *, statistics: bool = False) -> None:
    files = {**bundle.manifest.files, **(bundle.manifest.artifacts if statistics else {})}
    for file, entry in files.items():
        store.put(name, entry, lambda file=file: read_chunks(bundle.path / file))  # type: ignore[misc]
    assert store.create(revision_key(name, bundle), bundle.manifest.to_bytes())


def move(store: OciStore, name: str, bundle: Bundle, number: int) -> None:
    line = {"act": "promote", "facts": {"revision": bundle.revision}, "number": number}
    assert store.create(("names", name, "aliases", "stable", f"{number}.json"), json.dumps(line).encode())


def address(store: OciStore, name: str, tag: str) -> str:
    return f"{store.url.removeprefix('oci://')}/{name}:{tag}"


def blobs_of(store: OciStore, name: str) -> set[str]:
    return {digest for which, digest, _ in store.blobs([name]) if which == name}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_oras_pulls_what_an_alias_names(opened: Open, name: str, plain_bundle: Any, tmp_path: Path) -> None:
    store = opened()
    for number, bundle in enumerate([plain_bundle("r1"), plain_bundle("r1", "r2")], start=1):
        publish(store, bundle, name)
        move(store, name, bundle, number)
        target = tmp_path / str(number)
        oras("pull", "--plain-http", "--output", str(target), address(store, name, "stable"))
        wanted = {file: (bundle.path / file).read_bytes() for file in ("manifest.json", *bundle.manifest.files)}
        assert contents(target) == wanted
        assert read_bundle(target).revision == bundle.revision


def test_a_revisions_digest_is_that_of_its_configuration(opened: Open, name: str, plain_bundle: Any) -> None:
    store, bundle = opened(), plain_bundle("r1")
    publish(store, bundle, name)
    tag = "_R" + bundle.revision.removeprefix("sha256:")
    found = json.loads(oras("manifest", "fetch", "--plain-http", address(store, name, tag)))
    assert found["config"]["digest"] == bundle.revision
    assert found["artifactType"] == "application/vnd.eul.bundle.v1"
    fetched = oras("manifest", "fetch-config", "--plain-http", address(store, name, tag))
    assert Manifest.from_bytes(fetched.strip().encode()) == bundle.manifest


@pytest.mark.parametrize("statistics", [False, True])
def test_statistics_are_pulled_only_where_they_were_published(
    opened: Open, name: str, plain_bundle: Any, tmp_path: Path, statistics: bool
) -> None:
    store, bundle = opened(), plain_bundle("r1", statistics=True)
    publish(store, bundle, name, statistics=statistics)
    tag = "_R" + bundle.revision.removeprefix("sha256:")
    oras("pull", "--plain-http", "--output", str(tmp_path / "out"), address(store, name, tag))
    assert bool(contents(tmp_path / "out").keys() & bundle.manifest.artifacts.keys()) == statistics


@pytest.mark.parametrize("first", ["revision", "signature"])
def test_oras_discovers_signatures(opened: Open, name: str, plain_bundle: Any, first: str) -> None:
    store, bundle, signature = opened(), plain_bundle("r1"), b'{"mediaType":"sigstore"}'
    hexes = bundle.revision.removeprefix("sha256:")
    key = ("names", name, "signatures", hexes, hashlib.sha256(signature).hexdigest() + ".json")
    steps: list[Callable[[], object]] = [
        lambda: publish(store, bundle, name),
        lambda: store.create(key, signature),
    ]
    for step in steps if first == "revision" else reversed(steps):
        step()

    def discovered() -> list[str]:
        told = oras("discover", "--plain-http", "--format", "json", address(store, name, f"_R{hexes}"))
        return [found["artifactType"] for found in json.loads(told)["manifests"] or []]

    assert discovered() == [SIGNATURE]
    assert opened().read(key) == signature
    assert opened().list("names", name, "signatures", hexes) == [key[-1]]
    store.remove(key)
    assert discovered() == []
    assert opened().list("names", name, "signatures") == []


def test_a_bundle_that_oras_pushed_is_read(opened: Open, name: str, plain_bundle: Any) -> None:
    store, bundle = opened(), plain_bundle("r1")
    tag = "_R" + bundle.revision.removeprefix("sha256:")
    oras(
        "push", "--plain-http", "--artifact-type", "application/vnd.eul.bundle.v1",
        "--config", "manifest.json:application/vnd.eul.manifest.v1+json",
        address(store, name, tag), *bundle.manifest.files, cwd=bundle.path,
    )  # fmt: skip
    assert store.read(revision_key(name, bundle)) == bundle.manifest.to_bytes()
    assert store.list("names", name, "revisions") == [revision_key(name, bundle)[-1]]
    for file, entry in bundle.manifest.files.items():
        assert store.holds(name, entry)
        assert b"".join(store.chunks(name, entry)) == (bundle.path / file).read_bytes()
    assert blobs_of(store, name) == {entry.sha256 for entry in bundle.manifest.files.values()}
    assert store.age(revision_key(name, bundle)) is not None


def test_of_eight_clients_one_makes_a_record(opened: Open, name: str) -> None:
    key, start = ("names", name, "aliases", "stable", "1.json"), threading.Barrier(8)

    def run(number: int) -> bool:
        store = opened()
        start.wait(30)
        return store.create(key, b"%d" % number)

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(run, range(8)))
    assert won.count(True) == 1
    assert opened().read(key) == b"%d" % won.index(True)


def test_a_lock_keeps_others_out_until_its_dead_holder_has_expired(opened: Open) -> None:
    store, key = opened(), ("claims", "dead.json")
    place = Place.parse(store.url)
    began = time.monotonic()
    Lock(Repository(Wire(place), place.path), DELAY, HOLD).acquire()
    assert store.create(key, b"{}")
    assert time.monotonic() - began > HOLD
    assert opened().read(key) == b"{}"


def test_a_living_holder_is_waited_for(opened: Open) -> None:
    store, key, freed = opened(), ("claims", "alive.json"), list[float]()
    place = Place.parse(store.url)
    with ThreadPoolExecutor(1) as threads:
        with Lock(Repository(Wire(place), place.path), DELAY, HOLD).held() as hold:
            made = threads.submit(lambda: (store.create(key, b"{}"), time.monotonic()))
            while hold and hold.lasts and time.monotonic() < hold.until - HOLD / 2:
                assert opened().read(key) is None
            freed.append(time.monotonic())
        new, at = made.result(30)
    assert new
    assert at > freed[0]


def test_a_writer_that_was_too_late_waits_until_no_holder_can_be_left(opened: Open) -> None:
    place, held = Place.parse(opened().url), threading.Event()
    repository = Repository(Wire(place), place.repository("late"))

    class LateLock(Lock):
        def _write(self, nonce: str) -> None:
            # Saw the lock free, and is held up until somebody else has it: its nonce takes the other one's place.
            assert held.wait(30)
            super()._write(nonce)

    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(lambda: (LateLock(repository, DELAY, HOLD).acquire(), time.monotonic()))
        first = Lock(repository, DELAY, HOLD).acquire()
        held.set()
        second, at = late.result(60)
    assert first
    assert second
    assert at > first.until


def test_blobs_come_whole_over_a_line_that_breaks(opened: Open, name: str) -> None:
    data = bytes(range(256)) * (20 << 12)
    entry = entry_of(data)
    host = Place.parse(opened().url).host
    with CuttingProxy(host) as proxy:
        store = OciStore(f"oci://{proxy.host}/team/layers", delay=DELAY, hold=HOLD)
        assert not store.holds(name, entry)
        proxy.cut_requests_after(12 << 20, 5 << 20)
        store.put(name, entry, lambda: iter([data]))
        assert proxy.cuts == 2
        assert opened().holds(name, entry)
        proxy.cut_answers_after(3 << 20, 9 << 20, 1 << 20)
        proxy.answered = 0
        assert b"".join(store.chunks(name, entry)) == data
        assert proxy.cuts == 5
        assert proxy.answered < len(data) + (4 << 20), "what had come was asked for again"


def test_what_a_killed_upload_left_is_found(opened: Open, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(BaseException):
        """Stands for SIGKILL: nothing of ours runs after it."""

    store, entry, marks = opened(), entry_of(b"orphan"), list[int]()
    mark = Blobs._mark

    def killed_after_upload(self: Blobs, *rest: Any) -> None:
        marks.append(len(marks))
        if len(marks) == 2:
            raise KilledError
        mark(self, *rest)

    monkeypatch.setattr(Blobs, "_mark", killed_after_upload)
    with pytest.raises(KilledError):
        store.put(name, entry, lambda: iter([b"orphan"]))
    assert name not in opened().list("names"), "it has no record"
    assert (name, entry.sha256) in [(which, digest) for which, digest, _ in opened().blobs([])]
    store.drop(name, entry.sha256)
    assert not opened().holds(name, entry)
    assert blobs_of(opened(), name) == set()


@pytest.mark.parametrize("size", [5, 9 << 20])
@pytest.mark.parametrize("wrong", ["other", "short", "long"])
def test_a_source_with_other_bytes_leaves_nothing(opened: Open, name: str, size: int, wrong: str) -> None:
    data = {"other": b"r" * (size - 1) + b"w", "short": b"r" * (size - 1), "long": b"r" * (size + 1)}[wrong]
    store, entry = opened(), entry_of(b"r" * size)
    with pytest.raises(BundleFormatError, match="found other bytes"):
        store.put(name, entry, lambda: iter([data]))
    assert not store.holds(name, entry)
    assert blobs_of(store, name) == set()


def test_a_source_that_fails_leaves_nothing_and_is_heard(opened: Open, name: str) -> None:
    def failing() -> Iterator[bytes]:
        yield b"a" * (9 << 20)
        raise InputError("the disk is gone")

    store, entry = opened(), entry_of(b"a" * (10 << 20))
    with pytest.raises(InputError, match="the disk is gone"):
        store.put(name, entry, failing)
    assert not store.holds(name, entry)
    assert blobs_of(store, name) == set()


def test_the_registrys_own_garbage_collection_takes_nothing_of_ours(plain_bundle: Any, tmp_path: Path) -> None:
    with running_registry(tmp_path) as host:
        store, bundle = OciStore(f"oci://{host}/team", delay=DELAY), plain_bundle("r1", statistics=True)
        signature = ("names", "poems", "signatures", bundle.revision[7:], "0" * 64 + ".json")
        publish(store, bundle, "poems")
        for file, entry in bundle.manifest.artifacts.items():  # after the revision, so that no layer names them
            store.put("poems", entry, lambda file=file: read_chunks(bundle.path / file))  # type: ignore[misc]
        move(store, "poems", bundle, 1)
        store.create(signature, b"{}")
        store.create(("log", "1.json"), b"a line")
        before = {digest for _, digest, _ in store.blobs(["poems"])}
        line = [program("docker-registry"), "garbage-collect", "--delete-untagged", str(tmp_path / "config.yml")]
        subprocess.run(line, check=True, timeout=60, capture_output=True)
        kept = {**bundle.manifest.files, **bundle.manifest.artifacts}
        assert before == {entry.sha256 for entry in kept.values()}
        for file, entry in kept.items():
            assert b"".join(store.chunks("poems", entry)) == (bundle.path / file).read_bytes()
        assert store.read(revision_key("poems", bundle)) == bundle.manifest.to_bytes()
        assert (store.read(signature), store.read(("log", "1.json"))) == (b"{}", b"a line")
        assert store.create(("log", "2.json"), b"another")
        oras("pull", "--plain-http", "--output", str(tmp_path / "out"), address(store, "poems", "stable"))
        assert contents(tmp_path / "out").keys() == {"manifest.json", *bundle.manifest.files}


def test_a_blob_that_was_cut_short_in_the_storage_is_told_to_who_puts_it(tmp_path: Path) -> None:
    with running_registry(tmp_path) as host:
        store, entry = OciStore(f"oci://{host}/team", delay=DELAY), entry_of(b"whole")
        store.put("poems", entry, lambda: iter([b"whole"]))
        (stored,) = (tmp_path / "storage").rglob(f"{entry.sha256[7:]}/data")
        stored.write_bytes(b"who")
        assert b"".join(store.chunks("poems", entry)) == b"who"
        assert not store.holds("poems", entry)
        with pytest.raises(BundleFormatError, match="delete it in its storage"):
            store.put("poems", entry, lambda: iter([b"whole"]))


def test_a_registry_that_forbids_deletion_is_told_how_to_allow_it(tmp_path: Path) -> None:
    with running_registry(tmp_path, deletion=False) as host:
        store, entry = OciStore(f"oci://{host}/team", delay=DELAY), entry_of(b"kept")
        store.create(("claims", "a.json"), b"{}")
        store.put("poems", entry, lambda: iter([b"kept"]))
        acts: list[Callable[[], None]] = [
            lambda: store.remove(("claims", "a.json")),
            lambda: store.drop("poems", entry.sha256),
        ]
        for act in acts:
            with pytest.raises(RefusedError, match="REGISTRY_STORAGE_DELETE_ENABLED"):
                act()
        assert store.read(("claims", "a.json")) == b"{}"


@pytest.mark.parametrize("name", ["poems-", "poems.", "a._b", "a__-b", "a___b"])
def test_a_name_that_oci_does_not_allow_is_refused(opened: Open, name: str) -> None:
    with pytest.raises(InputError, match="OCI registries allow"):
        opened().create(("names", name, "aliases", "stable", "1.json"), b"{}")


def test_removed_records_take_no_other_with_them(opened: Open, name: str) -> None:
    keys = [("names", name, "aliases", alias, "1.json") for alias in ("a", "b")]
    for key in keys:
        assert opened().create(key, b"the same bytes")
    opened().remove(keys[0])
    assert opened().read(keys[0]) is None
    assert opened().read(keys[1]) == b"the same bytes"
