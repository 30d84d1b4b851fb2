"""The manifests that records are kept as, and how a record is had back from one.

A revision is an artifact that other tools can pull: its configuration is our canonical manifest, its layers the files
of the bundle by name. Every other record is an artifact with one layer, the record's bytes.
"""

from __future__ import annotations

from datetime import UTC, datetime

from eul_serve.errors import EulError
from eul_serve.format import Manifest
from eul_serve.format.bundle import MANIFEST_FILE
from eul_serve.format.digest import digest_bytes
from eul_serve.registry.oci.descriptor import TITLE, Descriptor
from eul_serve.registry.oci.image import CREATED, Image
from eul_serve.registry.oci.repository import Repository
from eul_serve.registry.store import Key

BUNDLE_TYPE = "application/vnd.eul.bundle.v1"
MANIFEST_TYPE = "application/vnd.eul.manifest.v1+json"
WEIGHTS_TYPE = "application/vnd.eul.weights.v1.safetensors"
CONFIG_TYPE = "application/vnd.eul.config.v1+json"
RECORD_TYPE = "application/vnd.eul.record.v1"
SIGNATURE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
UPLOAD_TYPE = "application/vnd.eul.upload.v1"
KEY = "vnd.eul.key"
"""Annotation with a record's key: no two records have the same manifest, so deleting one deletes no other."""
_TYPES = {".safetensors": WEIGHTS_TYPE, ".json": CONFIG_TYPE}


def created(image: Image) -> float | None:
    """Return when a manifest was made, in seconds of its registry's clock; None where it does not say."""
    try:
        return datetime.fromisoformat(image.annotations.get(CREATED, "")).timestamp()
    except ValueError:
        return None


def notes(parts: Key, now: float) -> dict[str, str]:
    """Return the annotations of a record that is made now."""
    moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    return {KEY: "/".join(parts), CREATED: moment.replace("+00:00", "Z")}


def record_image(parts: Key, data: bytes, now: float, subject: Descriptor | None) -> Image:
    """Return the manifest of a record that is no revision.

    Args:
        parts: Its key below its repository.
        data: Its bytes.
        now: The registry's time, in seconds.
        subject: The revision that it signs; None for a record of another kind.

    Returns:
        The manifest.
    """
    signature = parts[0] == "signatures"
    kind = SIGNATURE_TYPE if signature else "application/octet-stream"
    layer = Descriptor.of(data, kind, title=parts[-1].replace("/", "_"), inline=True)
    return Image(
        artifact_type=SIGNATURE_TYPE if signature else RECORD_TYPE,
        layers=(layer,),
        annotations=notes(parts, now),
        subject=subject,
    )


def revision_of(parts: Key, data: bytes) -> Manifest | None:
    """Return the manifest that a record is; None for any other record, whatever its name says."""
    if len(parts) != 2 or parts[0] != "revisions" or f"sha256:{parts[1].removesuffix('.json')}" != digest_bytes(data):
        return None
    try:
        return Manifest.from_bytes(data)
    except EulError:
        return None


def revision_image(repository: Repository, parts: Key, manifest: Manifest, now: float) -> Image:
    """Return the manifest of a revision, with a layer for each of its files that is there.

    Args:
        repository: Where the files are.
        parts: The record's key below its repository.
        manifest: The canonical manifest.
        now: The registry's time, in seconds.

    Returns:
        The manifest.
    """
    entries = {**manifest.files, **manifest.artifacts}
    layers = tuple(
        Descriptor(
            media_type=_TYPES.get(file[file.rfind(".") :], "application/octet-stream"),
            digest=entry.sha256,
            size=entry.size,
            annotations={TITLE: file},
        )
        for file, entry in sorted(entries.items())
        # Fusion statistics are artifacts, and there only where their owner wanted it.
        if repository.size(entry.sha256) == entry.size
    )
    # With a name, so that what is pulled is a whole bundle.
    config = Descriptor.of(manifest.to_bytes(), MANIFEST_TYPE, title=MANIFEST_FILE)
    return Image(artifact_type=BUNDLE_TYPE, config=config, layers=layers, annotations=notes(parts, now))


def record_of(image: Image) -> Descriptor | None:
    """Return the blob that holds a record's bytes, None where a manifest is no record of ours."""
    if image.config.media_type == MANIFEST_TYPE:
        return image.config
    return image.layers[0] if len(image.layers) == 1 else None
