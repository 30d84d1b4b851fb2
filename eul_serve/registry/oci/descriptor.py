"""OCI's descriptors: what a manifest says of a blob or of another manifest."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eul_serve.errors import BundleFormatError, EulError
from eul_serve.format import check_digest
from eul_serve.format.digest import digest_bytes

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
"""The blob that OCI puts where a manifest must name one and has none."""
TITLE = "org.opencontainers.image.title"
MAX_INLINE = 16 << 10
"""Most bytes of a blob that is also written into the manifest, which saves a request."""


def parse_notes(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return the annotations of a document; AttributeError where they are no object."""
    return {str(key): str(value) for key, value in (raw.get("annotations") or {}).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What points to a blob or a manifest."""

    media_type: str
    """What it is."""
    digest: str
    """Digest, `sha256:<hex>`."""
    size: int
    """Size in bytes."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Notes, by name."""
    artifact_type: str = ""
    """What kind of manifest it points to; empty for a blob."""
    data: bytes | None = None
    """The bytes themselves, where they were written along."""

    @classmethod
    def of(cls, data: bytes, media_type: str, *, title: str = "", inline: bool = False) -> Descriptor:
        """Return the descriptor of some bytes.

        Args:
            data: The bytes.
            media_type: What they are.
            title: Name of the file that a puller writes; empty for none.
            inline: Whether to write the bytes along, where they are few.

        Returns:
            The descriptor.
        """
        return cls(
            media_type=media_type,
            digest=digest_bytes(data),
            size=len(data),
            annotations={TITLE: title} if title else {},
            data=data if inline and len(data) <= MAX_INLINE else None,
        )

    @classmethod
    def parse(cls, raw: object, where: str) -> Descriptor:
        """Parse a descriptor, or raise BundleFormatError; fields that we do not know are left alone."""
        try:
            found = cls._from(raw) if isinstance(raw, dict) else None
        except (LookupError, TypeError, ValueError, AttributeError, EulError):
            found = None
        if found is None:
            raise BundleFormatError(f"{where}: expected a descriptor of OCI, found {str(raw)[:100]!r}")
        return found

    @classmethod
    def _from(cls, raw: dict[str, Any]) -> Descriptor | None:
        """Return a descriptor; None, or any error of Python's, where it is none."""
        data = base64.b64decode(raw["data"], validate=True) if "data" in raw else None
        found = cls(
            media_type=raw["mediaType"],
            digest=check_digest(raw["digest"]),
            size=raw["size"],
            annotations=parse_notes(raw),
            artifact_type=raw.get("artifactType") or "",
            data=data,
        )
        texts = isinstance(found.media_type, str) and isinstance(found.artifact_type, str)
        sized = type(found.size) is int and found.size >= 0
        same = data is None or (len(data), digest_bytes(data)) == (found.size, found.digest)
        return found if texts and sized and same else None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.data is not None:
            found["data"] = base64.b64encode(self.data).decode()
        return found


NOTHING = Descriptor.of(EMPTY, EMPTY_TYPE)
