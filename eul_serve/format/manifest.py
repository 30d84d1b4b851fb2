"""`manifest.json`: what a bundle forgets, what it was made from, and the digest of each of its files.

A revision is the sha256 of these bytes, so they are canonical: sorted keys, no spaces, no clock time, host or path.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.base import BaseModel, parse_base
from eul_serve.format.config import FORMAT_VERSION, check_keys, parse_object
from eul_serve.format.digest import digest_bytes
from eul_serve.format.listing import FileEntry, parse_files
from eul_serve.format.names import check_digest
from eul_serve.format.request import ForgottenRequest, check_units, parse_request

MAX_REQUESTS = 10_000
TRAINING_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that a revision promises."""

    base: BaseModel
    """The base model."""
    requests: tuple[ForgottenRequest, ...]
    """The requests that the bundle covers, in the order of their units."""
    parents: tuple[str, ...] = ()
    """Revisions of the layers that were fused, in order; empty for a trained layer."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the training or the fusion, as plain JSON."""
    training_dtype: str = "float32"
    """dtype in which the layers were trained."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Measured numbers, as plain JSON."""
    files: dict[str, FileEntry]
    """The published files by name, manifest excluded."""
    artifacts: dict[str, FileEntry] = field(default_factory=dict)
    """Files with an access right of their own (`fusion.safetensors`), which need not be present."""
    version: int = FORMAT_VERSION
    """Version of the format."""

    def __post_init__(self) -> None:
        if self.version != FORMAT_VERSION:
            raise BundleFormatError(f"manifest.json: version: expected {FORMAT_VERSION}, found {self.version}")
        if not 1 <= len(self.requests) <= MAX_REQUESTS:
            raise BundleFormatError(
                f"manifest.json: requests: expected 1 to {MAX_REQUESTS}, found {len(self.requests)}"
            )
        if len(self.request_ids) != len(self.requests):
            raise BundleFormatError("manifest.json: requests: an id occurs twice")
        if len(self.parents) > MAX_REQUESTS:
            raise BundleFormatError(
                f"manifest.json: parents: expected at most {MAX_REQUESTS}, found {len(self.parents)}"
            )
        if self.training_dtype not in TRAINING_DTYPES:
            raise BundleFormatError(
                f"manifest.json: training_dtype: expected one of {', '.join(TRAINING_DTYPES)}, "
                f"found {self.training_dtype!r:.40}"
            )
        if both := sorted(self.files.keys() & self.artifacts.keys()):
            raise BundleFormatError(
                f"manifest.json: file {both[0]!r}: expected under files or artifacts, found in both"
            )
        check_units(self.requests)

    @property
    def request_ids(self) -> frozenset[str]:
        """Ids of the covered requests."""
        return frozenset(request.id for request in self.requests)

    @property
    def revision(self) -> str:
        """Digest of the canonical bytes."""
        return digest_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the canonical bytes.

        Returns:
            ASCII JSON with sorted keys and no spaces.

        Raises:
            InputError: A setting or metric is not plain JSON, or not finite.
        """
        try:
            return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"manifest: settings and metrics must be plain, finite JSON: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Parse `manifest.json`.

        Args:
            data: The bytes of the file.

        Returns:
            The manifest.

        Raises:
            BundleFormatError: Not canonical JSON, an unknown or missing key, or a bad value.
        """
        found = parse_object(data, "manifest.json")
        check_keys(found, _MANIFEST_KEYS, "manifest.json")
        try:
            manifest = cls(
                **{
                    **found,
                    "base": parse_base(found["base"]),
                    "requests": tuple(parse_request(raw) for raw in found["requests"]),
                    "parents": tuple(check_digest(parent) for parent in found["parents"]),
                    "files": parse_files(found["files"]),
                    "artifacts": parse_files(found["artifacts"]),
                }
            )
            same = manifest.to_bytes() == data
        except InputError as error:
            raise BundleFormatError(f"manifest.json: {error}") from error
        if not same:
            raise BundleFormatError(
                "manifest.json: expected canonical JSON (sorted keys, no spaces), found another form"
            )
        return manifest


_MANIFEST_KEYS: dict[str, type] = {
    "artifacts": dict,
    "base": dict,
    "files": dict,
    "metrics": dict,
    "parents": list,
    "requests": list,
    "settings": dict,
    "training_dtype": str,
    "version": int,
}


def round_metric(value: float, digits: int = 6) -> float | None:
    """Round a measured number for a manifest; None for one that JSON cannot hold."""
    return round(value, digits) if math.isfinite(value) else None
