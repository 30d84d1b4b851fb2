"""Objects in an S3 bucket: the calls of S3 itself, through s3fs's session, credentials and retries."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from eul_serve.errors import InputError
from eul_serve.format import FileEntry
from eul_serve.registry.blobs import checked
from eul_serve.registry.object_errors import failure_codes, object_errors
from eul_serve.registry.objects import OWN, Stat
from eul_serve.registry.s3_upload import DIGEST, PART, S3Upload
from eul_serve.registry.store import Opened

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_CONDITIONAL = f"{OWN}conditional"


class S3Objects:
    """Objects of one bucket below a prefix."""

    def __init__(self, system: AbstractFileSystem, bucket: str, prefix: str) -> None:
        """Name a place.

        Args:
            system: s3fs's file system; keeps no listings.
            bucket: The bucket.
            prefix: What its keys begin with; may be empty.
        """
        self._system, self._bucket, self._prefix = system, bucket, prefix
        self._where = f"s3://{bucket}/{prefix}".rstrip("/")
        self._seen = False
        self._proved = False

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Make one call of S3 on the bucket.

        Args:
            method: botocore's name of it.
            **parameters: All but `Bucket`.

        Returns:
            The answer.

        Raises:
            FileNotFoundError: There is no such object or upload.
            FileExistsError: A condition does not hold.
            EulError: Everything else.
        """
        with object_errors(self._where):
            answer: dict[str, Any] = self._system.call_s3(method, Bucket=self._bucket, **parameters)
            return answer

    def require(self) -> None:
        """Raise NotFoundError where the bucket is not there: HEAD says 404 for that as for a missing object."""
        if not self._seen:
            self.call("list_objects_v2", Prefix=self._key(""), MaxKeys=1)
            self._seen = True

    def read(self, path: str, start: int, end: int) -> bytes:
        """Return the bytes of a range, as far as there are any."""
        with object_errors(self._where):
            try:
                return bytes(self._system.cat_file(f"{self._bucket}/{self._key(path)}", start=start, end=end))
            except OSError as error:
                if "416" in failure_codes(error):  # nothing in that range: an empty object
                    return b""
                raise

    def create(self, path: str, data: bytes) -> None:
        """Make an object whole, or raise FileExistsError."""
        self._prove()
        self.call("put_object", Key=self._key(path), Body=data, IfNoneMatch="*")

    def remove(self, path: str) -> None:
        """Remove an object; S3 does not say whether there was one."""
        self.call("delete_object", Key=self._key(path))

    def children(self, path: str) -> list[str]:
        """Return the names directly below a path."""
        prefix = self._key(f"{path}/" if path else "")
        names = []
        for page in self._pages(prefix):
            names += [found["Key"].removeprefix(prefix) for found in page.get("Contents", [])]
            names += [found["Prefix"].removeprefix(prefix).rstrip("/") for found in page.get("CommonPrefixes", [])]
        # Some tools mark a folder with an empty object of its own name.
        return [name for name in names if name]

    def stat(self, path: str) -> Stat:
        """Return what is known of an object, with the digest that `upload` had verified."""
        found = self.call("head_object", Key=self._key(path))
        age = _age(found["LastModified"], found)
        return Stat(size=found["ContentLength"], age=age, digest=found.get("Metadata", {}).get(DIGEST, ""))

    def below(self, path: str) -> Iterator[tuple[str, float]]:
        """Yield the objects directly below a path, a thousand for each request."""
        prefix = self._key(f"{path}/")
        for page in self._pages(prefix):
            for found in page.get("Contents", []):
                yield found["Key"].removeprefix(prefix), _age(found["LastModified"], page)

    def upload(self, path: str, entry: FileEntry, source: Opened) -> None:
        """Store an object whole, in parts where it is large."""
        key = self._key(path)
        if entry.size > PART:
            S3Upload(self.call, key, entry, self._where).run(source)
            return
        data = b"".join(checked(source(), entry, f"{self._where}: file"))
        digest = entry.sha256.removeprefix("sha256:")
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        self.call("put_object", Key=key, Body=data, ChecksumSHA256=checksum, Metadata={DIGEST: digest})

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def _pages(self, prefix: str) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            page = self.call("list_objects_v2", Prefix=prefix, Delimiter="/", **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _prove(self) -> None:
        """Refuse a service that ignores conditions: it would take two publishers' records and keep one."""
        if self._proved:
            return
        for _ in range(2):
            try:
                self.call("put_object", Key=self._key(_CONDITIONAL), Body=b"", IfNoneMatch="*")
            except FileExistsError:
                self._proved = True
                return
        raise InputError(
            f"{self._where}: the service overwrites in spite of 'If-None-Match: *', so publishers could lose each "
            "other's acts; use one with conditional writes, such as AWS S3, MinIO or SeaweedFS in a current release"
        )


def _age(made: datetime, answer: dict[str, Any]) -> float:
    """Return how long ago something was written, by the server's clock: the same answer says what time it is there."""
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(said) if said else datetime.now(UTC)
    return max(0.0, (now - made).total_seconds())
