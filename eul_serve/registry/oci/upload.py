"""One blob on its way into a repository: in pieces, resumed where the registry still has them, begun anew where not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from eul_serve.errors import EulError
from eul_serve.format import FileEntry
from eul_serve.registry.blobs import checked
from eul_serve.registry.oci.answer import Answer, BrokenError
from eul_serve.registry.oci.repository import Repository
from eul_serve.registry.store import Opened

PIECE_BYTES = 8 << 20
"""Bytes of a blob that are sent, and kept in memory, at once."""
MAX_PIECE = 64 << 20
"""Most bytes of a piece that a registry can ask for."""
TRIES = 4
"""How often an upload is begun, and how often one of its pieces is sent."""
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


def upload(repository: Repository, entry: FileEntry, source: Opened, where: str) -> None:
    """Upload a blob; it is there when its last request is done, and never with other bytes.

    Args:
        repository: Where to.
        entry: Digest and size.
        source: Opens its bytes.
        where: What they are, for messages.

    Raises:
        BundleFormatError: The bytes are not those of the entry.
        BrokenError: The connection broke again and again.
    """
    for last in range(TRIES):
        session = _Session(repository)
        try:
            session.send(checked(source(), entry, where), entry)
            return
        except BrokenError:
            # Where only the answer was lost, the blob is there.
            if repository.size(entry.sha256) == entry.size:
                return
            if last + 1 == TRIES:
                raise
        except BaseException:
            session.cancel()
            raise


class _Session:
    """One upload session of the registry's."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._answer = repository.start_upload()
        self._offset = 0

    def send(self, chunks: Iterable[bytes], entry: FileEntry) -> None:
        """Send all bytes, and only when all are checked name their digest."""
        told = self._answer.headers.get("OCI-Chunk-Min-Length", "")
        size = min(max(PIECE_BYTES, int(told) if told.isascii() and told.isdigit() else 0), MAX_PIECE)
        last = b""
        for piece in _pieces(chunks, size):
            if last:
                self._send_piece(last)
            last = piece
        if self._offset:
            self._send_piece(last)
            last = b""
        self._repository.finish_upload(self._answer, entry.sha256, last)

    def cancel(self) -> None:
        """Tell the registry to forget the session; it does so by itself some day."""
        with suppress(EulError):
            url = self._repository.location(self._answer)
            self._repository.wire.ask(self._repository.request("DELETE", url, once=True), ok=(200, 202, 204))

    def _send_piece(self, piece: bytes) -> None:
        start = self._offset
        for last in range(TRIES):
            try:
                self._patch(piece[self._offset - start :])
            except BrokenError:
                if last + 1 == TRIES:
                    raise
                self._ask_offset(start, len(piece))
            if self._offset == start + len(piece):
                return
        raise BrokenError(f"{self._repository}: the registry takes no more of an upload; try later")

    def _patch(self, data: bytes) -> None:
        end = self._offset + len(data)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(data)),
            "Content-Range": f"{self._offset}-{end - 1}",
        }
        request = self._repository.request("PATCH", self._repository.location(self._answer), data, headers, once=True)
        self._answer = self._repository.wire.ask(request, ok=(201, 202, 204))
        self._offset = end

    def _ask_offset(self, start: int, size: int) -> None:
        """Ask how much has arrived; raise BrokenError, so that the upload begins anew, where that is no use to us."""
        try:
            request = self._repository.request("GET", self._repository.location(self._answer))
            self._answer = _moved(self._repository.wire.ask(request, ok=(200, 202, 204)), self._answer)
        except EulError as error:
            raise BrokenError(f"{self._repository}: an upload broke, and the registry does not resume it") from error
        found = _RANGE.fullmatch(self._answer.headers.get("Range", ""))
        # "0-0" is said for no byte as well as for one; nobody breaks off after one.
        self._offset = int(found[1]) + 1 if found and found[1] != "0" else 0
        if not start <= self._offset <= start + size:
            raise BrokenError(f"{self._repository}: an upload broke, and the registry has lost its start")


def _moved(answer: Answer, before: Answer) -> Answer:
    """Return an answer with a place to go on: its own, or the one before."""
    if answer.headers.get("Location"):
        return answer
    headers = {**dict(answer.headers), "Location": before.headers["Location"]}
    return Answer(status=answer.status, headers=headers, body=answer.body)


def _pieces(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in pieces of one size; the last one may be shorter."""
    waiting = bytearray()
    for data in chunks:
        waiting += data
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)
