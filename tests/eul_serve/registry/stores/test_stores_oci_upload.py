"""Uploads to registries that keep half of a piece, lose all of it, or lose only their answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from eul_serve.errors import BundleFormatError, BusyError
from eul_serve.format import FileEntry
from eul_serve.registry.oci import OciStore, pool, upload

from .oci_fake import Asked, Told, fake_registry

DATA = bytes(range(250)) * 40
ENTRY = FileEntry(sha256="sha256:" + hashlib.sha256(DATA).hexdigest(), size=len(DATA))
LOST = 99
"""A Content-Length that no answer of the fake has: the client sees a connection that breaks."""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(upload, "PIECE_BYTES", 3000)
    monkeypatch.setattr(pool, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


class Uploads:
    """A registry's uploads, which break as a test says."""

    def __init__(self, breaks: list[int | None], *, resumes: bool = True, loses_answer: bool = False) -> None:
        self.breaks, self.resumes, self.loses_answer = breaks, resumes, loses_answer
        self.now, self.blobs = b"", dict[str, bytes]()
        self.started = 0

    def answer(self, asked: Asked) -> Told:
        here = {"Location": "/v2/team/poems/blobs/uploads/1?state=x", "Range": f"0-{max(len(self.now) - 1, 0)}"}
        digest = asked.path.rpartition("digest=")[2].rpartition("/")[2]
        match asked.method, "/uploads/" in asked.path:
            case "POST", True:
                self.now, self.started = b"", self.started + ("/poems/" in asked.path)
                return Told(status=202, headers=here)
            case "PATCH", True:
                return self._patch(asked)
            case "GET", True:
                return Told(status=204, headers=here) if self.resumes else Told(status=404)
            case "PUT", True:
                self.blobs[digest] = self.now + asked.body
                lost = self.loses_answer and digest == ENTRY.sha256
                return Told(status=201, length=LOST if lost else None)
            case "HEAD", _:
                found = self.blobs.get(digest, b"{}" if digest.startswith("sha256:44136fa3") else None)
                return Told(status=404) if found is None else Told(length=len(found))
            case "PUT", _:
                return Told(status=201)
        return Told(status=404)

    def _patch(self, asked: Asked) -> Told:
        start = int(asked.headers["Content-Range"].partition("-")[0])
        assert start == len(self.now), "a piece was sent to another place than it belongs"
        keep = self.breaks.pop(0) if self.breaks else None
        self.now += asked.body[:keep]
        headers = {"Location": "/v2/team/poems/blobs/uploads/1?state=y"}
        return Told(status=202, headers=headers, length=None if keep is None else LOST)


def put(uploads: Uploads) -> int:
    """Put the blob, and return how often its source was opened."""
    openings = []

    def source() -> Iterator[bytes]:
        openings.append(1)
        yield DATA

    with fake_registry(uploads.answer) as fake:
        OciStore(f"oci://{fake.host}/team").put("poems", ENTRY, source)
    return len(openings)


def test_an_upload_goes_on_after_what_the_registry_has() -> None:
    uploads = Uploads([None, 1000, 0, 3000])
    assert put(uploads) == 1
    assert uploads.blobs[ENTRY.sha256] == DATA
    assert uploads.started == 1


def test_an_upload_begins_anew_where_the_registry_does_not_resume() -> None:
    uploads = Uploads([None, 1000, None, None, 20], resumes=False)
    assert put(uploads) == 3
    assert uploads.blobs[ENTRY.sha256] == DATA


def test_an_upload_whose_last_answer_was_lost_is_done() -> None:
    uploads = Uploads([], loses_answer=True)
    assert put(uploads) == 1
    assert uploads.started == 1


def test_an_upload_that_never_gets_through_is_given_up() -> None:
    with pytest.raises(BusyError):
        put(Uploads([0] * 1000))
    with pytest.raises(BusyError):
        put(Uploads([0] * 1000, resumes=False))


def test_a_damaged_blob_that_a_registry_does_not_replace_is_told() -> None:
    class Stubborn(Uploads):
        def answer(self, asked: Asked) -> Told:
            told = super().answer(asked)
            self.blobs[ENTRY.sha256] = b"damaged"
            return told

    with pytest.raises(BundleFormatError, match="the registry has 7"):
        put(Stubborn([]))
