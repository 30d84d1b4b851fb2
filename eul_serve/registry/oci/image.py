"""OCI's documents: image manifests, and the index in which referrers are listed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eul_serve.errors import BundleFormatError
from eul_serve.registry.oci.descriptor import EMPTY_TYPE, NOTHING, Descriptor, parse_notes

IMAGE_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A manifest of one artifact."""

    artifact_type: str = ""
    """What kind of artifact it is."""
    config: Descriptor = NOTHING
    """Its configuration."""
    layers: tuple[Descriptor, ...] = ()
    """Its files."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Notes, by name."""
    subject: Descriptor | None = None
    """The manifest that this one is about."""

    def to_bytes(self) -> bytes:
        """Return the JSON that is stored; without a layer it names the empty one, as OCI asks."""
        found: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": IMAGE_TYPE,
            "artifactType": self.artifact_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers or (NOTHING,)],
            "annotations": dict(self.annotations),
        }
        if self.subject is not None:
            found["subject"] = self.subject.to_json()
        return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, data: bytes, where: str) -> Image:
        """Parse a manifest.

        Args:
            data: Its bytes.
            where: What it is, for messages.

        Returns:
            The manifest.

        Raises:
            BundleFormatError: It is no image manifest.
        """
        raw = parse_json(data, where)
        layers, notes = raw.get("layers"), raw.get("annotations")
        if raw.get("schemaVersion") != 2 or not isinstance(layers, list) or not isinstance(notes or {}, dict):
            raise BundleFormatError(f"{where}: expected an image manifest of OCI, found something else under its tag")
        found = tuple(Descriptor.parse(layer, where) for layer in layers)
        subject = raw.get("subject")
        return cls(
            artifact_type=str(raw.get("artifactType") or ""),
            config=Descriptor.parse(raw.get("config"), where),
            layers=tuple(layer for layer in found if layer.media_type != EMPTY_TYPE),
            annotations=parse_notes(raw),
            subject=None if subject is None else Descriptor.parse(subject, where),
        )


def index_bytes(entries: list[Descriptor]) -> bytes:
    """Return an index of manifests."""
    found = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry.to_json() for entry in entries]}
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def parse_index(data: bytes, where: str) -> list[Descriptor]:
    """Return the manifests that an index lists, or raise BundleFormatError."""
    listed = parse_json(data, where).get("manifests")
    if not isinstance(listed, list):
        raise BundleFormatError(f"{where}: expected an index of OCI, found something else under its tag")
    return [Descriptor.parse(entry, where) for entry in listed]


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """Return a JSON object, or raise BundleFormatError."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BundleFormatError(f"{where}: expected a JSON object from the registry, found something else")
    return found
