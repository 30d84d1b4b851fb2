"""The OCI store and registries that speak nonsense: every answer ends in one of our errors, after bounded work."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import BundleFormatError, BusyError, CapacityError, EulError, InputError, NotFoundError
from eul_serve.format import FileEntry
from eul_serve.registry.oci import OciStore, pool
from eul_serve.registry.oci.descriptor import Descriptor
from eul_serve.registry.oci.image import Image

from .oci_fake import Asked, Fake, Told, fake_registry

KEY = ("claims", "a.json")
BLOB = b"bytes of a bundle" * 1000
ENTRY = FileEntry(sha256="sha256:" + hashlib.sha256(BLOB).hexdigest(), size=len(BLOB))
PASSWORD = "hunter2-hunter2"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No long waits, and nobody's real credentials."""
    monkeypatch.setattr(pool, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(pool, "RETRY_AFTER_SECONDS", 0.05)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def store_at(fake: Fake) -> OciStore:
    return OciStore(f"oci://{fake.host}/team", delay=0.01, hold=0.1)


def log_in(folder: Path, host: str) -> None:
    (folder / "docker").mkdir()
    auth = base64.b64encode(f"eve:{PASSWORD}".encode()).decode()
    (folder / "docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def always(told: Told) -> Callable[[Asked], Told]:
    return lambda asked: told


def test_nobody_at_the_address_is_said(tmp_path: Path) -> None:
    with fake_registry(always(Told())) as fake:
        gone = store_at(fake)
    with pytest.raises(NotFoundError, match="nobody answers"):
        gone.read(KEY)


@pytest.mark.parametrize(
    ("told", "error"),
    [
        (Told(body=b"{}", length=100), BusyError),
        (Told(body=b'{"schemaVersion":2}'), BundleFormatError),
        (Told(body=b"[" * 100_000), BundleFormatError),
        (Told(body=b"<html>a login page</html>"), BundleFormatError),
        (Told(body=b"{}", headers={"Docker-Content-Digest": "sha256:" + "0" * 64}), BundleFormatError),
        (Told(status=500), BusyError),
        (Told(status=503, headers={"Retry-After": "soon"}), BusyError),
        (Told(status=507), CapacityError),
        (Told(status=418, body=b'{"errors":[{"code":"TEA","message":"pot"}]}'), InputError),
        (Told(status=401), InputError),
        (Told(status=401, headers={"WWW-Authenticate": "Negotiate"}), InputError),
        (Told(status=403), InputError),
        (Told(status=302, headers={"Location": "file:///etc/passwd"}), InputError),
        (Told(status=302, headers={"Location": "http://[::1"}), InputError),
        (Told(status=302, headers={"Location": "http://127.0.0.1:99999/"}), InputError),
        (Told(status=302, headers={"Location": "http://a\x7fb c/"}), EulError),
        (Told(status=302, headers={"Location": "http://" + "a" * 70 + ".invalid/"}), EulError),
        (Told(status=302, headers={"Location": "/v2/team/manifests/again"}), InputError),
    ],
)
def test_nonsense_is_one_of_our_errors_after_few_requests(told: Told, error: type[EulError]) -> None:
    with fake_registry(always(told)) as fake:
        with pytest.raises(error):
            store_at(fake).read(KEY)
        assert 1 <= len(fake.asked) <= 15


@given(body=st.binary(max_size=200) | st.builds(
    lambda value: json.dumps(value).encode(),
    st.dictionaries(
        st.sampled_from(["schemaVersion", "config", "layers", "annotations", "subject", "artifactType"]),
        st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2)
                     | st.dictionaries(st.sampled_from(["mediaType", "digest", "size", "data"]), inner), max_leaves=6),
    ),
))  # fmt: skip
def test_any_manifest_parses_or_is_an_error(body: bytes) -> None:
    with suppress(BundleFormatError):
        assert Image.parse(Image.parse(body, "a manifest").to_bytes(), "written again")


def test_a_manifest_without_end_is_not_read_to_its_end() -> None:
    with fake_registry(always(Told(body=b" " * (1 << 20), endless=True))) as fake:
        with pytest.raises(BundleFormatError, match="at most"):
            store_at(fake).read(KEY)
        assert len(fake.sent) < 30  # 4 MiB that we read, and what fits into the buffers of two sockets


def test_a_record_with_other_bytes_is_refused() -> None:
    layer = Descriptor.of(b"true", "application/octet-stream")

    def answers(asked: Asked) -> Told:
        return Told(body=b"lies" if "/blobs/" in asked.path else Image(layers=(layer,)).to_bytes())

    with fake_registry(answers) as fake, pytest.raises(BundleFormatError, match="missing or damaged"):
        store_at(fake).read(KEY)


@pytest.mark.parametrize("body", [b"", BLOB[:-1], BLOB + b"more"])
def test_a_blob_of_another_size_comes_as_it_is_stored_for_the_caller_to_check(body: bytes) -> None:
    with fake_registry(always(Told(body=body))) as fake:
        assert b"".join(store_at(fake).chunks("poems", ENTRY)) == body


def test_a_blob_without_end_is_not_read_to_its_end() -> None:
    with fake_registry(always(Told(body=BLOB * 100, endless=True))) as fake:
        with pytest.raises(BundleFormatError, match="expected 17000 bytes"):
            b"".join(store_at(fake).chunks("poems", ENTRY))
        assert len(fake.sent) < 10


def test_a_blob_that_never_comes_to_its_end_is_given_up() -> None:
    with fake_registry(always(Told(length=len(BLOB)))) as fake:
        with pytest.raises(BusyError, match="broke 4 times"):
            b"".join(store_at(fake).chunks("poems", ENTRY))
        assert len(fake.asked) == 4


def test_a_blob_goes_on_where_it_broke_off_whatever_the_registry_knows_of_ranges() -> None:
    for knows in (True, False):

        def answers(asked: Asked, knows: bool = knows) -> Told:
            start = int(asked.headers.get("Range", "bytes=0-")[6:-1])
            if start and knows:
                said = {"Content-Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"}
                return Told(status=206, headers=said, body=BLOB[start:])
            return Told(body=BLOB[: len(BLOB) if start else 5000], length=len(BLOB))

        with fake_registry(answers) as fake:
            assert b"".join(store_at(fake).chunks("poems", ENTRY)) == BLOB


def test_other_bytes_than_were_asked_for_are_refused() -> None:
    def answers(asked: Asked) -> Told:
        if "Range" in asked.headers:
            return Told(status=206, headers={"Content-Range": "bytes 0-1/2"}, body=BLOB)
        return Told(body=BLOB[:5000], length=len(BLOB))

    with fake_registry(answers) as fake, pytest.raises(BundleFormatError, match="was sent others"):
        b"".join(store_at(fake).chunks("poems", ENTRY))


def with_token(asked: Asked, host: str, then: Told) -> Told:
    """Answer as a registry with a token service does."""
    if asked.path.startswith("/token"):
        return Told(body=b'{"token":"t0ken"}')
    if asked.headers.get("Authorization") != "Bearer t0ken":
        challenge = f'Bearer realm="http://{host}/token",service="here",scope="repository:team:pull"'
        return Told(status=401, headers={"WWW-Authenticate": challenge})
    return then


def test_a_token_is_asked_for_with_the_password_of_docker_login(tmp_path: Path) -> None:
    hosts: list[str] = []
    with fake_registry(lambda asked: with_token(asked, hosts[0], Told(status=404))) as fake:
        hosts.append(fake.host)
        log_in(tmp_path, fake.host)
        store = store_at(fake)
        assert store.read(KEY) is None
        assert store.read(KEY) is None
        tokens = [asked for asked in fake.asked if asked.path.startswith("/token")]
        assert len(tokens) == 1
        assert base64.b64decode(tokens[0].headers["Authorization"].split()[1]).decode() == f"eve:{PASSWORD}"
        asked = parse_qs(urlsplit(tokens[0].path).query)
        assert asked == {"service": ["here"], "scope": ["repository:team:pull"]}


def test_an_identity_token_is_exchanged_without_a_password(tmp_path: Path) -> None:
    hosts: list[str] = []
    with fake_registry(lambda asked: with_token(asked, hosts[0], Told(status=404))) as fake:
        hosts.append(fake.host)
        (tmp_path / "docker").mkdir()
        known = {"auths": {f"https://{fake.host}/v2/": {"identitytoken": PASSWORD}}}
        (tmp_path / "docker" / "config.json").write_text(json.dumps(known))
        assert store_at(fake).read(KEY) is None
        (asked,) = [asked for asked in fake.asked if asked.path.startswith("/token")]
        assert asked.method == "POST"
        assert parse_qs(asked.body.decode())["refresh_token"] == [PASSWORD]
        assert "Authorization" not in asked.headers


@pytest.mark.parametrize("made", ["", "yesterday", "2026-13-01T00:00:00Z"])
def test_a_record_that_does_not_say_when_it_was_made_is_young(made: str) -> None:
    layer = Descriptor.of(b"{}", "application/octet-stream")
    body = Image(layers=(layer,), annotations={"org.opencontainers.image.created": made}).to_bytes()
    with fake_registry(always(Told(body=body))) as fake:
        assert store_at(fake).age(KEY) == 0


def test_the_age_of_a_record_is_told_by_the_registrys_clock() -> None:
    layer = Descriptor.of(b"{}", "application/octet-stream")
    body = Image(layers=(layer,), annotations={"org.opencontainers.image.created": "2001-01-01T00:00:00Z"}).to_bytes()
    with fake_registry(always(Told(body=body, headers={"Date": "Mon, 01 Jan 2001 01:00:00 GMT"}))) as fake:
        assert store_at(fake).age(KEY) == pytest.approx(3600, abs=5)


def test_a_token_that_has_run_out_is_asked_for_again() -> None:
    hosts: list[str] = []
    valid = ["t1", "t2", "t2"]

    def answers(asked: Asked) -> Told:
        if asked.path.startswith("/token"):
            return Told(body=json.dumps({"access_token": valid[0]}).encode())
        if asked.headers.get("Authorization") != f"Bearer {valid[0]}":
            return Told(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{hosts[0]}/token"'})
        return Told(status=404)

    with fake_registry(answers) as fake:
        hosts.append(fake.host)
        store = store_at(fake)
        assert store.read(KEY) is None
        valid.pop(0)
        assert store.read(KEY) is None


@pytest.mark.parametrize(
    "realm", ["http://elsewhere.invalid/token", "ftp://127.0.0.1/", "http://a@127.0.0.1/", "", "http://[1"]
)
def test_a_password_goes_to_no_token_service_in_the_open(realm: str, tmp_path: Path) -> None:
    told = Told(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})
    with fake_registry(always(told)) as fake:
        log_in(tmp_path, fake.host)
        with pytest.raises(InputError, match="token service"):
            store_at(fake).read(KEY)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"token":"a\\nb"}', b'{"token":7}', b"nonsense"])
def test_a_token_service_without_a_token_is_refused(body: bytes) -> None:
    hosts: list[str] = []

    def answers(asked: Asked) -> Told:
        return Told(body=body) if asked.path.startswith("/token") else with_token(asked, hosts[0], Told())

    with fake_registry(answers) as fake:
        hosts.append(fake.host)
        with pytest.raises(InputError, match="expected a token"):
            store_at(fake).read(KEY)


def test_a_redirect_takes_no_credentials_elsewhere(tmp_path: Path) -> None:
    with fake_registry(always(Told(body=BLOB))) as elsewhere:
        target = f"http://{elsewhere.host}/storage?signed=yes"

        def answers(asked: Asked) -> Told:
            if "Authorization" not in asked.headers:
                return Told(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            return Told(status=307, headers={"Location": target})

        with fake_registry(answers) as fake:
            log_in(tmp_path, fake.host)
            assert b"".join(store_at(fake).chunks("poems", ENTRY)) == BLOB
        assert [asked.path for asked in elsewhere.asked] == ["/storage?signed=yes"]
        assert "Authorization" not in elsewhere.asked[0].headers


def test_an_upload_is_sent_nowhere_else() -> None:
    with fake_registry(always(Told(status=201))) as elsewhere:
        told = Told(status=202, headers={"Location": f"http://{elsewhere.host}/upload"})
        answers = lambda asked: told if asked.method == "POST" else Told(status=404)  # noqa: E731
        with fake_registry(answers) as fake, pytest.raises(InputError, match="sends us to"):
            store_at(fake).create(KEY, b"{}")
        assert elsewhere.asked == []


def test_a_busy_registry_is_asked_again_and_not_for_long() -> None:
    busy = [Told(status=429, headers={"Retry-After": "86400"})] * 2
    with fake_registry(lambda asked: busy.pop() if busy else Told(status=404)) as fake:
        began = time.monotonic()
        assert store_at(fake).read(KEY) is None
        assert time.monotonic() - began < 5
        assert len(fake.asked) == 3


def test_a_password_is_in_no_message(tmp_path: Path) -> None:
    said = json.dumps({"errors": [{"code": "DENIED", "message": "no\x1b[31m access"}]}).encode()

    def answers(asked: Asked) -> Told:
        basic = Told(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return Told(status=403, body=said) if "Authorization" in asked.headers else basic

    with fake_registry(answers) as fake:
        log_in(tmp_path, fake.host)
        with pytest.raises(InputError) as caught:
            store_at(fake).read(KEY)
    assert "DENIED no[31m access" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert "\x1b" not in str(caught.value)


DAMAGED = (
    "[]",
    "{",
    '{"auths":[]}',
    '{"auths":{"HOST":{"auth":"%%"}}}',
    '{"credsStore":"../x"}',
    '{"credsStore":"absent-helper"}',
)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_of_credentials_is_named(content: str, tmp_path: Path) -> None:
    told = Told(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    with fake_registry(always(told)) as fake:
        (tmp_path / "docker").mkdir()
        (tmp_path / "docker" / "config.json").write_text(content.replace("HOST", fake.host))
        with pytest.raises(InputError, match=r"config\.json"):
            store_at(fake).read(KEY)


def test_a_credential_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-ours"
    helper.write_text(f'#!/bin/sh\nread -r host\necho "{{\\"Username\\":\\"eve\\",\\"Secret\\":\\"{PASSWORD}\\"}}"\n')
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text('{"credsStore":"ours"}')

    def answers(asked: Asked) -> Told:
        basic = Told(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return Told(status=404) if "Authorization" in asked.headers else basic

    with fake_registry(answers) as fake:
        assert store_at(fake).read(KEY) is None
        sent = fake.asked[-1].headers["Authorization"].removeprefix("Basic ")
        assert base64.b64decode(sent).decode() == f"eve:{PASSWORD}"


def test_tags_are_listed_over_all_pages_and_pages_that_lead_in_a_circle_end() -> None:
    def answers(asked: Asked) -> Told:
        last = parse_qs(urlsplit(asked.path).query).get("last", ["0"])[0]
        link = {"Link": f'</v2/team/tags/list?n=1000&last={(int(last) + 1) % 3}>; rel="next"'}
        return Told(headers=link, body=json.dumps({"tags": [f"_L{last}", "stable", 7]}).encode())

    with fake_registry(answers) as fake:
        assert store_at(fake).list("log") == ["0.json", "1.json", "2.json"]
        assert len(fake.asked) == 4


@pytest.mark.parametrize("body", [b"[]", b"nonsense", b'{"tags":7}', b'{"tags":"_L1"}'])
def test_a_listing_that_is_none_is_an_error(body: bytes) -> None:
    with fake_registry(always(Told(body=body))) as fake, pytest.raises(BundleFormatError, match="tags"):
        store_at(fake).list("log")


@pytest.mark.parametrize("body", [b'{"tags":null}', b'{"name":"team"}', b'{"tags":[7,null,"latest"]}'])
def test_tags_that_are_not_ours_are_no_records(body: bytes) -> None:
    with fake_registry(always(Told(body=body))) as fake:
        assert store_at(fake).list("log") == []
