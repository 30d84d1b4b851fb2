"""One blob on its way out of a repository: piece by piece, and from where it broke off when a connection does."""

from __future__ import annotations

from collections.abc import Iterator

from eul_serve.errors import BundleFormatError, NotFoundError
from eul_serve.format import FileEntry
from eul_serve.registry.oci.answer import Answer, BrokenError
from eul_serve.registry.oci.repository import Repository

SLACK_BYTES = 1 << 20
"""How many bytes too many are passed on, for the caller to see that they are other ones."""
TRIES = 4
"""How often a connection may break without a single byte."""


def download(repository: Repository, entry: FileEntry) -> Iterator[bytes]:
    """Yield a blob's bytes as they come; whoever takes them checks their digest.

    Args:
        repository: Where from.
        entry: Digest and size.

    Yields:
        Pieces of at most 1 MiB.

    Raises:
        NotFoundError: It is not there.
        BundleFormatError: The registry sends far more bytes, or others than it was asked for.
        BrokenError: The connection broke again and again.
    """
    got, idle = 0, 0
    while idle < TRIES:
        before = got
        try:
            for data in _from(repository, entry, got):
                got += len(data)
                yield data
        except BrokenError:
            idle = 0 if got > before else idle + 1
            continue
        return
    raise BrokenError(f"{repository} {entry.sha256}: the connection broke {TRIES} times at byte {got}; try later")


def _from(repository: Repository, entry: FileEntry, start: int) -> Iterator[bytes]:
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = repository.request("GET", f"blobs/{entry.sha256}", headers=headers)
    if start == entry.size and start:
        return  # it broke after the last byte
    with repository.wire.stream(request, ok=(200, 206, 404)) as (answer, pieces):
        if answer.status == 404:
            raise NotFoundError(f"{request.what}: not there; publish the bundle again to repair the registry")
        at = _begins(answer, start, request.what)
        for data in pieces:
            if at + len(data) > entry.size + SLACK_BYTES:
                raise BundleFormatError(f"{request.what}: expected {entry.size} bytes from the registry, found more")
            # Where it sends all from the start again, what we had is passed over.
            if new := data[max(0, start - at) :]:
                yield new
            at += len(data)


def _begins(answer: Answer, start: int, what: str) -> int:
    """Return at which byte an answer begins."""
    if answer.status == 200:
        return 0
    if not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise BundleFormatError(f"{what}: asked for the bytes from {start}, and was sent others")
    return start
