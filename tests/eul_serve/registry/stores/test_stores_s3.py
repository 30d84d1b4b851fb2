"""What an S3 service can do to a registry, and what a registry makes of it; the server is SeaweedFS, a real one."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from eul_serve.errors import BusyError, InputError, NotFoundError
from eul_serve.format import FileEntry
from eul_serve.registry.object_store import ObjectStore
from eul_serve.registry.s3_upload import MAX_PARTS, PART, part_size, parts
from tests.eul_serve.registry.stores.s3_proxy import Fault, Proxy, Request, proxy_before
from tests.eul_serve.registry.stores.s3_server import BUCKET, KEYS, fresh_url, s3_environment

MIB = 1 << 20
RECORD = ("log", "1.json")
WAIT_SECONDS = 60
# Puts a blob whose source stands still after `stop` bytes.
DRIVER = """
import random, sys, time
from eul_serve.format import FileEntry
from eul_serve.registry.object_store import ObjectStore

url, digest, size, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
data = random.Random(size).randbytes(size)

def source():
    for start in range(0, size, 1 << 20):
        if start >= stop:
            time.sleep(600)
        yield data[start : start + (1 << 20)]

ObjectStore(url).put("poems", FileEntry(sha256=digest, size=size), source)
"""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before the server; this process's endpoint."""
    with (
        s3_environment() as server,
        proxy_before(server.endpoint) as proxy,
        s3_environment(AWS_ENDPOINT_URL=proxy.endpoint),
    ):
        yield proxy


@pytest.fixture
def url() -> Iterator[str]:
    """An empty place, and the credentials of a publisher."""
    with s3_environment():
        yield fresh_url()


def blob(size: int) -> tuple[bytes, FileEntry]:
    data = random.Random(size).randbytes(size)
    return data, FileEntry(sha256=f"sha256:{hashlib.sha256(data).hexdigest()}", size=size)


def once(data: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: (data[start : start + MIB] for start in range(0, len(data), MIB))


def s3(method: str, **parameters: object) -> dict[str, Any]:
    """Ask the server past our code."""
    import s3fs

    system = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    answer: dict[str, Any] = system.call_s3(method, Bucket=BUCKET, **parameters)
    return answer


def key_of(url: str, entry: FileEntry) -> str:
    return f"{url.split('/', 3)[3]}/blobs/sha256/{entry.sha256.removeprefix('sha256:')}"


def unfinished(url: str, entry: FileEntry) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = s3("list_multipart_uploads", Prefix=key_of(url, entry)).get("Uploads", [])
    return found


def on_record(fault: Fault, times: int = 1_000_000) -> Callable[[Request], Fault]:
    """Do something to the first requests that put a record."""
    left = [times]

    def rule(request: Request) -> Fault:
        if request.method == "PUT" and request.path.endswith(RECORD[-1]) and left[0] > 0:
            left[0] -= 1
            return fault
        return "pass"

    return rule


def test_an_upload_goes_on_where_a_killed_publisher_stopped(proxy: Proxy) -> None:
    url, (data, entry) = fresh_url(), blob(7 * PART + 12345)
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, url, entry.sha256, str(entry.size), str(5 * PART)])
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := unfinished(url, entry)) or len(parts_of(url, entry, found[0])) < 3:
            assert driver.poll() is None
            assert time.monotonic() < deadline, "no parts arrive"
            time.sleep(0.1)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    kept = len(parts_of(url, entry, found[0]))
    store = ObjectStore(url)
    assert store.holds("poems", entry) is False
    proxy.seen.clear()
    store.put("poems", entry, once(data))
    assert 0 < len(proxy.parts()) <= 8 - kept  # a part may have become whole after the count
    assert sum(request.size for request in proxy.parts()) < entry.size - 2 * PART
    assert b"".join(store.chunks("poems", entry)) == data
    assert unfinished(url, entry) == []


def parts_of(url: str, entry: FileEntry, upload: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = s3("list_parts", Key=key_of(url, entry), UploadId=upload["UploadId"]).get("Parts", [])
    return found


def test_a_part_with_other_bytes_is_sent_again(proxy: Proxy) -> None:
    url, (data, entry) = fresh_url(), blob(2 * PART + 1)
    begun = s3("create_multipart_upload", Key=key_of(url, entry))
    for number, body in ((1, bytes(PART)), (2, data[PART : 2 * PART])):
        s3("upload_part", Key=key_of(url, entry), UploadId=begun["UploadId"], PartNumber=number, Body=body)
    proxy.seen.clear()
    ObjectStore(url).put("poems", entry, once(data))
    assert sorted(request.path.split("partNumber=")[1][0] for request in proxy.parts()) == ["1", "3"]
    assert b"".join(ObjectStore(url).chunks("poems", entry)) == data


def test_an_upload_that_somebody_aborts_is_begun_anew(url: str) -> None:
    data, entry = blob(3 * PART)
    opened = []

    def source() -> Iterator[bytes]:
        opened.append(1)
        for start in range(0, len(data), MIB):
            if start == 2 * PART and len(opened) == 1:
                for upload in unfinished(url, entry):
                    s3("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
            yield data[start : start + MIB]

    ObjectStore(url).put("poems", entry, source)
    assert len(opened) == 2
    assert b"".join(ObjectStore(url).chunks("poems", entry)) == data


def test_parts_follow_from_the_size_and_are_never_too_many() -> None:
    for size in (PART + 1, PART * MAX_PARTS, PART * MAX_PARTS + 1, 5 << 40):
        assert -(-size // part_size(size)) <= MAX_PARTS
        assert part_size(size) % PART == 0
    assert list(parts([b"ab", b"", b"cdefg", b"h"], 3)) == [b"abc", b"def", b"gh"]


def test_a_lost_answer_is_looked_up(proxy: Proxy) -> None:
    store = ObjectStore(fresh_url())
    proxy.rule = on_record("lose the answer", 1)
    assert store.create(RECORD, b"ours") is True
    assert store.read(RECORD) == b"ours"


def test_if_all_answers_are_lost_the_record_itself_tells(proxy: Proxy) -> None:
    url = fresh_url()
    proxy.rule = on_record("lose the answer")
    assert ObjectStore(url).create(RECORD, b"ours") is True
    assert ObjectStore(url).create(RECORD, b"theirs") is False


def test_a_short_refusal_for_load_is_waited_out(proxy: Proxy) -> None:
    proxy.rule = on_record("slow down", 3)
    assert ObjectStore(fresh_url()).create(RECORD, b"ours") is True
    assert len([request for request in proxy.seen if request.path.endswith(RECORD[-1])]) == 4


def test_a_lasting_one_is_said(proxy: Proxy) -> None:
    proxy.rule = on_record("slow down")
    with pytest.raises(BusyError, match="SlowDown"):
        ObjectStore(fresh_url()).create(RECORD, b"ours")


def test_a_service_that_overwrites_is_refused_before_a_record_is_written(proxy: Proxy) -> None:
    url = fresh_url()
    proxy.rule = lambda request: "say done" if request.path.endswith(".conditional") else "pass"
    with pytest.raises(InputError, match="If-None-Match"):
        ObjectStore(url).create(RECORD, b"ours")
    assert ObjectStore(url).list() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "SignatureDoesNotMatch|PermissionError"),
        ({"AWS_PROFILE": "nowhere"}, "ProfileNotFound"),
    ],
)
def test_bad_credentials_are_named_and_never_shown(changes: dict[str, str], words: str) -> None:
    for act in acts():
        with s3_environment() as server, pytest.MonkeyPatch.context() as patch:
            for name, value in (server.environment() | changes).items():
                patch.setenv(name, value)
            with pytest.raises(InputError, match=words) as refused:
                act(ObjectStore(fresh_url()))
        told = f"{refused.value!r} {refused.value.__cause__!r}"
        assert not [secret for secret in (*KEYS.values(), "wrong-secret", "nobody") if secret in told]
        assert refused.value.__suppress_context__


def acts() -> list[Callable[[ObjectStore], object]]:
    data, entry = blob(10)
    return [
        lambda store: store.read(RECORD),
        lambda store: store.create(RECORD, b"x"),
        lambda store: store.list("log"),
        lambda store: store.put("poems", entry, once(data)),
    ]


def test_without_credentials_nothing_is_asked() -> None:
    with s3_environment(), pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(InputError, match="AWS_PROFILE"):
            ObjectStore(fresh_url()).read(RECORD)


def test_a_reader_cannot_write_and_is_told(url: str) -> None:
    ObjectStore(url).create(RECORD, b"x")
    with s3_environment("reader"):
        store = ObjectStore(url)
        assert store.read(RECORD) == b"x"
        with pytest.raises(InputError, match="AccessDenied"):
            store.create(("log", "2.json"), b"x")


def test_a_bucket_that_is_not_there_is_no_empty_registry() -> None:
    entry = blob(10)[1]
    more: list[Callable[[ObjectStore], object]] = [
        lambda store: store.age(RECORD),
        lambda store: store.holds("poems", entry),
        lambda store: list(store.blobs(["poems"])),
        lambda store: store.remove(RECORD),
    ]
    with s3_environment():
        store = ObjectStore("s3://no-such-bucket/registry")
        for act in acts() + more:
            with pytest.raises(NotFoundError, match="there is no such bucket"):
                act(store)


def test_an_endpoint_where_nothing_listens_is_named() -> None:
    with s3_environment(AWS_ENDPOINT_URL="http://127.0.0.1:1"), pytest.raises(NotFoundError, match="AWS_ENDPOINT_URL"):
        ObjectStore(fresh_url()).read(RECORD)


def test_a_listing_of_more_than_a_page_is_whole(url: str) -> None:
    store, names = ObjectStore(url), [f"{number}.json" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda name: store.create(("log", name), b"{}"), names))
    assert ObjectStore(url).list("log") == sorted(names)


def test_the_age_is_by_the_clock_of_the_server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(url)
    store.create(RECORD, b"x")
    store.put("poems", blob(10)[1], once(blob(10)[0]))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    ages = [store.age(RECORD), *(age for _, _, age in store.blobs(["poems"]))]
    assert [age for age in ages if age is None or not 0 <= age < WAIT_SECONDS] == []


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hunter2@bucket/registry",
        "s3://hunter2@bucket/registry",
        "abfs://container:hunter2@account.example/registry",
        "s3://bucket/registry?password=hunter2",
        "s3://bucket/registry#hunter2",
        "memory://a::s3://hunter2@bucket/x",
    ],
)
def test_a_url_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError) as refused:
        ObjectStore(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://b/../x", "s3://b//x", "s3://b/a b", "s3://b/.x", "gs://*"])
def test_a_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="expected"):
        ObjectStore(url)


@pytest.mark.parametrize("url", ["ftp://host/x", "hdfs://host/x", "file:///x", "dir::s3://b", "bucket"])
def test_a_file_system_that_overwrites_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"s3://, .*gs://.*abfs://.*memory://"):
        ObjectStore(url)


@pytest.mark.parametrize(
    ("url", "package"), [("gs://bucket/x", "gcsfs"), ("abfs://container@account.example/x", "adlfs")]
)
def test_a_missing_package_is_named(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"pip install '{package}'"):
        ObjectStore(url)


def test_a_server_that_hangs_up_is_said(proxy: Proxy) -> None:
    proxy.rule = lambda request: "lose the answer"
    with pytest.raises(BusyError, match="run again later"):
        ObjectStore(fresh_url()).list("log")
