"""A large blob's way into an S3 bucket: in parts, several at once, and on from where a killed publisher stopped.

The parts of a blob follow from its size alone. Whoever puts it again asks for unfinished uploads of its key, keeps the
parts whose size and MD5 are those of the local bytes, and sends the others. Nothing is taken back when an attempt
fails, and nobody sees the blob before the last step, which is taken only when all local bytes had the right SHA-256.
Two publishers of one blob may share an upload: S3 completes it only with the parts that the completing one has checked.

Where the bucket encrypts with keys of KMS, a part's ETag is no MD5, and every part is sent again.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from eul_serve.errors import BusyError, InputError
from eul_serve.format import FileEntry
from eul_serve.registry.blobs import checked
from eul_serve.registry.store import Opened

PART = 8 << 20
"""Bytes of a part; a blob of at most as many is sent in one piece."""
MAX_PARTS = 10_000
"""Most parts that S3 takes; a larger blob has larger parts."""
AT_ONCE = 4
"""How many parts are sent at once. With one that is read and the copies that the library makes: 125 MiB, measured."""
TRIES = 3
"""How often an upload is begun that others finish or abort under our hands."""
DIGEST = "sha256"
"""Metadata of an object whose bytes were verified, hex."""

Call = Callable[..., dict[str, Any]]
Parts = dict[int, tuple[int, str]]
"""Size and ETag of the parts that a bucket holds, by their number."""


class UploadEndedError(Exception):
    """The upload is gone: another publisher completed it, or somebody cleared up."""


class S3Upload:
    """The upload of one blob."""

    def __init__(self, call: Call, key: str, entry: FileEntry, where: str) -> None:
        """Name what is uploaded.

        Args:
            call: Makes a call of S3 on the bucket, as `S3Objects.call` does.
            key: Key of the object.
            entry: The blob.
            where: The registry's URL, for messages.
        """
        self._call, self._key, self._entry, self._where = call, key, entry, where
        self._digest = entry.sha256.removeprefix("sha256:")

    def run(self, source: Opened) -> None:
        """Upload the blob whole, or leave only parts that nobody sees.

        Args:
            source: Opens the local bytes; what they raise is raised on.

        Raises:
            BundleFormatError: The bytes are not those of the entry.
            BusyError: S3 did not answer, or others ended the upload again and again.
        """
        for _ in range(TRIES):
            try:
                self._attempt(source)
                return
            except UploadEndedError:
                if self._is_whole():
                    return
            except BusyError:  # the answer to the last step may be what was lost
                if self._is_whole():
                    return
                raise
        raise BusyError(f"{self._where}: upload of {self._entry.sha256} was ended {TRIES} times by others; run again")

    def _attempt(self, source: Opened) -> None:
        upload, there = self._unfinished()
        sent: dict[int, str] = {}
        waiting: deque[Future[tuple[int, str]]] = deque()
        pieces = checked(source(), self._entry, f"{self._where}: file")
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="eul-part") as pool:
            for number, data in enumerate(parts(pieces, part_size(self._entry.size)), 1):
                md5 = hashlib.md5(data, usedforsecurity=False)
                if there.get(number) == (len(data), md5.hexdigest()):
                    sent[number] = f'"{md5.hexdigest()}"'
                    continue
                if len(waiting) == AT_ONCE:
                    sent.update([waiting.popleft().result()])
                waiting.append(pool.submit(self._send, upload, number, data, md5.digest()))
            sent.update(future.result() for future in waiting)
        listed = [{"PartNumber": number, "ETag": sent[number]} for number in sorted(sent)]
        self._ask("complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": listed})

    def _send(self, upload: str, number: int, data: bytes, md5: bytes) -> tuple[int, str]:
        checksum = base64.b64encode(md5).decode()
        answer = self._ask("upload_part", UploadId=upload, PartNumber=number, Body=data, ContentMD5=checksum)
        return number, answer["ETag"]

    def _unfinished(self) -> tuple[str, Parts]:
        """Return the newest unfinished upload of the key and its parts, or a new one."""
        try:
            found = self._call("list_multipart_uploads", Prefix=self._key).get("Uploads", [])
            ours = [upload for upload in found if upload["Key"] == self._key]
            if ours:
                upload = max(ours, key=lambda one: one["Initiated"])["UploadId"]
                return upload, self._parts(upload)
        except InputError:
            # Without the right to list uploads everything is sent anew, which is slow but no reason to fail.
            pass
        begun = self._ask("create_multipart_upload", Metadata={DIGEST: self._digest})
        return begun["UploadId"], {}

    def _parts(self, upload: str) -> Parts:
        there: Parts = {}
        after = 0
        while True:
            page = self._ask("list_parts", UploadId=upload, PartNumberMarker=after)
            for part in page.get("Parts", []):
                there[part["PartNumber"]] = part["Size"], part["ETag"].strip('"')
            if not page.get("IsTruncated"):
                return there
            after = page["NextPartNumberMarker"]

    def _ask(self, method: str, **parameters: object) -> dict[str, Any]:
        try:
            return self._call(method, Key=self._key, **parameters)
        except (FileNotFoundError, FileExistsError) as error:
            # Under a name of its own: a source may raise FileNotFoundError too.
            raise UploadEndedError from error

    def _is_whole(self) -> bool:
        try:
            found = self._call("head_object", Key=self._key)
        except FileNotFoundError:
            return False
        is_ours: bool = found.get("Metadata", {}).get(DIGEST) == self._digest
        return is_ours and found["ContentLength"] == self._entry.size


def part_size(size: int) -> int:
    """Return how many bytes each part of a blob has but the last.

    Args:
        size: Bytes of the blob.

    Returns:
        The same number on every machine and at every attempt.
    """
    part = PART
    while part * MAX_PARTS < size:
        part *= 2
    return part


def parts(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Cut a stream into parts.

    Args:
        pieces: The stream.
        size: Bytes of each part but the last.

    Yields:
        The parts.
    """
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)
