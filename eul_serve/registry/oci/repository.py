"""One repository of an OCI registry: its manifests, tags and small blobs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.digest import digest_bytes
from eul_serve.registry.oci.answer import Answer, BrokenError
from eul_serve.registry.oci.descriptor import EMPTY, NOTHING, Descriptor
from eul_serve.registry.oci.image import IMAGE_TYPE, INDEX_TYPE, parse_json
from eul_serve.registry.oci.request import Request

if TYPE_CHECKING:
    from eul_serve.registry.oci.wire import Wire

PAGE = 1000
"""How many tags are asked for at once."""
MAX_PAGES = 10_000
"""Most pages of a listing."""
MAX_LISTING = 64 << 20
"""Most bytes of one page: some registries answer with all tags, whatever was asked for."""
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A manifest as it was read."""

    data: bytes
    """Its bytes."""
    digest: str
    """Their digest."""
    media_type: str
    """What the registry says it is."""


class Repository:
    """A repository; safe for threads. A repository comes into being with the first thing that is put into it."""

    def __init__(self, wire: Wire, path: str) -> None:
        self.wire, self.path = wire, path
        self._ready = False

    def __str__(self) -> str:
        return f"{self.wire.place.host}/{self.path}"

    def request(
        self,
        method: str,
        rest: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        once: bool = False,
    ) -> Request:
        """Return a request to this repository.

        Args:
            method: HTTP method.
            rest: Path below the repository, or a whole address that the registry gave.
            body: The body.
            headers: Headers.
            once: Whether sending it twice could do harm.

        Returns:
            The request.
        """
        url = rest if "://" in rest or rest.startswith("/") else f"/v2/{self.path}/{rest}"
        # Without the query: an upload's address can hold a signed state.
        what = f"{self} {'upload' if '/uploads' in url else urlsplit(url).path.rpartition(self.path)[2].strip('/')}"
        return Request(
            method=method, url=url, repository=self.path, what=what, headers=headers or {}, body=body, once=once
        )

    def manifest(self, reference: str) -> Stored | None:
        """Return the manifest under a tag or digest; None where there is none.

        Args:
            reference: Tag or digest.

        Returns:
            The manifest, checked against the digest that the registry names.

        Raises:
            BundleFormatError: Its bytes have another digest.
        """
        accepted = {"Accept": f"{IMAGE_TYPE}, {INDEX_TYPE}"}
        request = self.request("GET", f"manifests/{reference}", headers=accepted)
        answer = self.wire.ask(request, ok=(200, 404))
        if answer.status == 404:
            return None
        found = digest_bytes(answer.body)
        named = reference if ":" in reference else answer.headers.get("Docker-Content-Digest", found)
        if named.startswith("sha256:") and named != found:
            raise BundleFormatError(f"{request.what}: expected digest {named:.80}, found {found}")
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        return Stored(data=answer.body, digest=found, media_type=kind)

    def put_manifest(self, reference: str, data: bytes, media_type: str = IMAGE_TYPE) -> Answer:
        """Put a manifest under a tag or its digest, in the place of what is there.

        Args:
            reference: Tag or digest.
            data: Its bytes.
            media_type: What it is.

        Returns:
            The registry's answer.
        """
        self.prepare()
        request = self.request("PUT", f"manifests/{reference}", data, {"Content-Type": media_type})
        return self.wire.ask(request, ok=(200, 201, 202))

    def delete_manifest(self, digest: str) -> None:
        """Delete a manifest and the tags that point to it; nothing happens where there is none."""
        self.wire.ask(self.request("DELETE", f"manifests/{digest}"), ok=(200, 202, 204, 404))

    def tags(self) -> list[str]:
        """Return all tags, sorted; none where there is no such repository."""
        found: set[str] = set()
        for page in self._pages():
            # Some say null where a repository has no tag left.
            listed = parse_json(page.body, f"{self} tags/list").get("tags") or []
            if not isinstance(listed, list):
                raise BundleFormatError(
                    f"{self} tags/list: expected a list of tags from the registry, found another form"
                )
            found.update(tag for tag in listed if isinstance(tag, str))
        return sorted(found)

    def size(self, digest: str) -> int | None:
        """Return a blob's size, None where it is not there."""
        answer = self.wire.ask(self.request("HEAD", f"blobs/{digest}"), ok=(200, 404))
        length = answer.headers.get("Content-Length", "")
        return int(length) if answer.status == 200 and length.isascii() and length.isdigit() else None

    def small_blob(self, blob: Descriptor, limit: int) -> bytes:
        """Return a blob whole.

        Args:
            blob: The blob.
            limit: Most bytes that it may have.

        Returns:
            Its bytes, checked.

        Raises:
            BundleFormatError: It is missing, too large, or has another digest.
        """
        if blob.size > limit:
            raise BundleFormatError(f"{self} {blob.digest}: expected at most {limit} bytes, found {blob.size}")
        if blob.data is not None:
            return blob.data
        answer = self.wire.ask(self.request("GET", f"blobs/{blob.digest}"), ok=(200, 404), limit=blob.size)
        if answer.status == 404 or digest_bytes(answer.body) != blob.digest:
            raise BundleFormatError(f"{self} {blob.digest}: missing or damaged in the registry; publish it again")
        return answer.body

    def put_small_blob(self, data: bytes) -> str:
        """Put a blob where it is missing, in one piece, and return its digest."""
        digest = digest_bytes(data)
        for last in (False, True):
            if self.size(digest) == len(data):
                break
            try:
                self.finish_upload(self.start_upload(), digest, data)
            except BrokenError:
                if last:
                    raise
        return digest

    def delete_blob(self, digest: str) -> None:
        """Delete a blob; nothing happens where there is none."""
        self.wire.ask(self.request("DELETE", f"blobs/{digest}"), ok=(200, 202, 204, 404))

    def start_upload(self) -> Answer:
        """Begin an upload and return the answer that says where it goes."""
        return self.wire.ask(self.request("POST", "blobs/uploads/", b""), ok=(202,))

    def finish_upload(self, before: Answer, digest: str, data: bytes = b"") -> None:
        """Send the last bytes of an upload, and name its digest, which the registry checks."""
        where = self.location(before)
        url = f"{where}{'&' if urlsplit(where).query else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(data))}
        self.wire.ask(self.request("PUT", url, data, headers, once=True), ok=(201, 204))

    def location(self, answer: Answer) -> str:
        """Return where an upload goes on, or raise InputError where the answer does not say."""
        if not (where := answer.headers.get("Location")):
            raise InputError(
                f"{self}: the registry began an upload without saying where; does it speak OCI's protocol?"
            )
        return self.wire.absolute(where)

    def prepare(self) -> None:
        """Put the empty blob that our manifests name."""
        if not self._ready:
            assert self.put_small_blob(EMPTY) == NOTHING.digest, "the empty blob has another digest"
            self._ready = True

    def _pages(self) -> Iterator[Answer]:
        url, seen = f"tags/list?n={PAGE}", set[str]()
        while url not in seen:
            if len(seen) == MAX_PAGES:
                raise BundleFormatError(f"{self}: more than {MAX_PAGES} pages of tags; does its list of tags end?")
            seen.add(url)
            answer = self.wire.ask(self.request("GET", url), ok=(200, 404), limit=MAX_LISTING)
            if answer.status == 404:
                return
            yield answer
            found = _NEXT.search(answer.headers.get("Link", ""))
            if not found:
                return
            # Relative addresses are meant from this listing's own, which some registries use.
            url = found[1] if found[1].startswith(("/", "http")) else f"tags/list{found[1]}"
