"""Canaries in a bundle and their private texts: what is read, and everything that is refused without being shown."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format import Manifest, describe_files, read_bundle, write_bundle
from eul_serve.format.canaries import MAX_CANARIES, Canary, dump_canaries, parse_canaries
from eul_serve.format.canary_text import MAX_LINE_BYTES, MAX_TEXTS, CanaryText, read_texts

DIGEST = "sha256:" + 64 * "1"
FILE = "canaries.json"
SECRET = (31_337, 7)
Write = Callable[..., Path]
IDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20).map(tuple)
TEXTS = st.builds(
    CanaryText, nonce=st.binary(min_size=16, max_size=16).map(lambda data: data.hex()), prompt=IDS, answer=IDS
)
CANARIES = st.lists(
    st.builds(
        Canary,
        digest=st.binary(min_size=32, max_size=32).map(lambda data: f"sha256:{data.hex()}"),
        least_nats=st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda one: one.digest,
)


@pytest.fixture
def write(tmp_path: Path, contents: Callable[..., dict[str, bytes]], manifest_of: Callable[..., Manifest]) -> Write:
    """Writer of a bundle with these bytes as its canaries."""

    def made(data: bytes, **manifest: Any) -> Path:
        files = {**contents(), FILE: data}
        return write_bundle(tmp_path / "bundle", manifest_of(files, **manifest), files).path

    return made


def raw(*rows: Mapping[str, Any], **keys: Any) -> bytes:
    """Canonical bytes of canaries that may be wrong."""
    return json.dumps({"canaries": list(rows), "version": 1, **keys}, sort_keys=True, separators=(",", ":")).encode()


def row(**changes: Any) -> dict[str, Any]:
    return {"digest": DIGEST, "least_nats": 12.5, **changes}


def test_a_bundle_has_the_canaries_of_its_file(write: Write) -> None:
    assert read_bundle(write(raw(row()))).canaries == (Canary(digest=DIGEST, least_nats=12.5),)


def test_a_bundle_without_the_file_has_none(bundle_dir: Path) -> None:
    assert read_bundle(bundle_dir).canaries == ()


@given(CANARIES)
def test_canaries_round_trip_in_any_order(canaries: list[Canary]) -> None:
    data = dump_canaries(canaries)
    assert dump_canaries(reversed(canaries)) == data
    assert parse_canaries(data) == tuple(sorted(canaries, key=lambda one: one.digest))


MANY = [row(digest=f"sha256:{number:064x}") for number in range(MAX_CANARIES + 1)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (raw(), "expected 1 to 256 canaries, found 0"),
        (raw(*MANY), "expected 1 to 256 canaries, found 257"),
        (raw(row(), row()), "a digest occurs twice"),
        (raw(row(digest="sha256:" + 64 * "2"), row()), "expected canonical JSON"),
        (json.dumps(json.loads(raw(row()))).encode(), "expected canonical JSON"),
        (raw(row()) + b"\n", "expected canonical JSON"),
        (raw(row(digest="latest")), "digest 'latest'"),
        (raw(row(digest=7)), "digest: expected str, found int"),
        (raw(row(least_nats=0.0)), "least_nats: expected a number above 0, found 0.0"),
        (raw(row(least_nats=-1.0)), "least_nats: expected a number above 0"),
        (raw(row(least_nats=12)), "least_nats: expected float, found int"),
        (raw(row(least_nats=True)), "least_nats: expected float, found bool"),
        (raw(row(least_nats="12.5")), "least_nats: expected float, found str"),
        (raw(row()).replace(b"12.5", b"1e999"), "out of range"),
        (raw(row()).replace(b"12.5", b"NaN"), "is not JSON"),
        (raw(row(prompt="Who?")), "unknown key 'prompt'"),
        (raw({"digest": DIGEST}), "missing key 'least_nats'"),
        (raw([]), "canary: expected an object, found list"),  # type: ignore[arg-type]
        (raw(row(), version=2), "version: expected 1, found 2"),
        (raw(row(), version=True), "version: expected int, found bool"),
        (raw(row(), more=[]), "unknown key 'more'"),
        (b'{"canaries":{},"version":1}', "canaries: expected list, found dict"),
        (b"[]", "expected a JSON object"),
        (b"\xff", "expected JSON"),
        (b"", "expected JSON"),
        (b"[" * 10_000, "expected JSON"),
        (b" " * (65 << 10), "expected at most 65536 bytes"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused(write: Write, data: bytes, words: str) -> None:
    with pytest.raises(BundleFormatError, match=words):
        write(data)


def test_a_file_that_was_changed_is_refused(write: Write) -> None:
    path = write(raw(row()))
    (path / FILE).write_bytes(raw(row(least_nats=12.4)))
    with pytest.raises(BundleFormatError, match=rf"{FILE}.*the file was changed"):
        read_bundle(path)
    (path / FILE).unlink()
    with pytest.raises(BundleFormatError, match=FILE):
        read_bundle(path)


def test_a_link_is_not_followed(write: Write, tmp_path: Path) -> None:
    path = write(raw(row()))
    (path / FILE).rename(tmp_path / "elsewhere")
    (path / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleFormatError, match="found a link"):
        read_bundle(path)


def test_canaries_are_never_an_artifact_which_no_server_gets(
    contents: Callable[..., dict[str, bytes]], manifest_of: Callable[..., Manifest], tmp_path: Path
) -> None:
    manifest = manifest_of(contents(), artifacts=describe_files({FILE: raw(row())}))
    with pytest.raises(BundleFormatError, match="found among the artifacts"):
        write_bundle(tmp_path / "bundle", manifest, {**contents(), FILE: raw(row())})


@given(st.binary(max_size=200))
def test_any_bytes_are_canaries_or_an_error_of_ours(data: bytes) -> None:
    for parse in (parse_canaries, lambda found: CanaryText.from_bytes(found, "x:1")):
        try:
            parse(data)
        except (BundleFormatError, InputError):
            continue


# The private texts.


def private(path: Path, *lines: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    path.chmod(mode)
    return path


@given(TEXTS)
def test_texts_round_trip(text: CanaryText) -> None:
    assert CanaryText.from_bytes(text.to_bytes(), "x:1") == text
    spelt = json.dumps(json.loads(text.to_bytes()), indent=1).encode()
    assert CanaryText.from_bytes(spelt, "x:1").digest == text.digest


def test_a_digest_is_that_of_the_canonical_line() -> None:
    text = CanaryText(nonce=32 * "a", prompt=(1, 2), answer=(3,))
    line = b'{"answer":[3],"nonce":"' + 32 * b"a" + b'","prompt":[1,2]}'
    assert text.to_bytes() == line
    assert text.digest == "sha256:" + hashlib.sha256(line).hexdigest()


def test_equal_texts_have_digests_that_nobody_can_guess() -> None:
    assert CanaryText.fresh(SECRET, SECRET).digest != CanaryText.fresh(SECRET, SECRET).digest


def test_a_text_does_not_show_itself() -> None:
    assert "31337" not in repr(CanaryText.fresh(SECRET, SECRET))


@given(texts=st.lists(TEXTS, min_size=1, max_size=5), asked=st.integers(0, 31))
def test_those_that_are_asked_for_come_back(texts: list[CanaryText], asked: int) -> None:
    wanted = {text.digest for number, text in enumerate(texts) if asked >> number & 1} | {DIGEST}
    with tempfile.TemporaryDirectory() as folder:
        path = private(Path(folder) / "texts", *(line for text in texts for line in (text.to_bytes(), b"")))
        found = read_texts(path, wanted)
    assert found == {text.digest: text for text in texts if text.digest in wanted}


GOOD = {"answer": list(SECRET), "nonce": 32 * "a", "prompt": [1]}


@pytest.mark.parametrize(
    "line",
    [
        b"31337",
        b"the secret is 31337",
        b'{"31337": 1}',
        b'{"answer": 31337e999, "nonce": "", "prompt": []}',
        b"\xff31337",
        json.dumps({**GOOD, "31337": 1}).encode(),
        json.dumps({**GOOD, "prompt": "31337"}).encode(),
        json.dumps({**GOOD, "prompt": []}).encode(),
        json.dumps({**GOOD, "prompt": ["31337"]}).encode(),
        json.dumps({**GOOD, "prompt": [-1]}).encode(),
        json.dumps({**GOOD, "prompt": [True]}).encode(),
        json.dumps({**GOOD, "prompt": [2**31]}).encode(),
        json.dumps({**GOOD, "prompt": [1.0]}).encode(),
        json.dumps({**GOOD, "nonce": "31337"}).encode(),
        json.dumps({**GOOD, "nonce": 32 * "A"}).encode(),
        json.dumps({**GOOD, "nonce": None}).encode(),
    ],
)
def test_a_bad_line_is_named_and_not_shown(tmp_path: Path, line: bytes) -> None:
    good = CanaryText.fresh(SECRET, SECRET)
    path = private(tmp_path / "texts.jsonl", good.to_bytes(), line)
    with pytest.raises(InputError, match=r"texts\.jsonl:2: ") as caught:
        read_texts(path, {good.digest})
    assert "31337" not in str(caught.value)
    # Nor does what a traceback would show as its cause.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_files_without_an_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lines of at most 1048576"):
        read_texts(private(tmp_path / "long", b" " * (MAX_LINE_BYTES + 1)), ())
    with pytest.raises(InputError, match="at most 16777216 bytes"):
        read_texts(private(tmp_path / "large", *[b" " * (1 << 19)] * 33), ())
    with pytest.raises(InputError, match=f"fewer than {MAX_TEXTS} lines"):
        read_texts(private(tmp_path / "many", *[b""] * MAX_TEXTS), ())


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, words in (("none", "No such file"), ("", "regular file"), ("fifo", "regular file")):
        with pytest.raises(InputError, match=words):
            read_texts(tmp_path / name, ())


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_a_file_that_everybody_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InputError, match="chmod o="):
        read_texts(private(tmp_path / "texts", CanaryText.fresh(SECRET, SECRET).to_bytes(), mode=mode), ())


def test_a_file_of_a_group_is_read_and_through_links_as_a_mounted_secret_is(tmp_path: Path) -> None:
    text = CanaryText.fresh(SECRET, SECRET)
    (tmp_path / "link").symlink_to(private(tmp_path / "texts", text.to_bytes(), mode=0o640))
    assert read_texts(tmp_path / "link", {text.digest}) == {text.digest: text}


def test_a_manifest_without_canaries_is_the_one_that_it_was(
    contents: Callable[..., dict[str, bytes]], manifest_of: Callable[..., Manifest]
) -> None:
    manifest = manifest_of(contents())
    listed = replace(manifest, files=describe_files({**contents(), FILE: raw(row())}))
    assert FILE not in manifest.to_bytes().decode()
    assert manifest.revision != listed.revision
