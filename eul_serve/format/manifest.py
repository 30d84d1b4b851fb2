"""`manifest.json`: what a bundle forgets, what it was made from, and the digest of each of its files.

A revision is the sha256 of these bytes, so they are canonical: sorted keys, no spaces, no clock time, host or path.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.config import FORMAT_VERSION, check_keys, parse_object
from eul_serve.format.digest import digest_bytes
from eul_serve.format.names import check_digest, check_name

MAX_REQUESTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenRequest:
    """One deletion request that the bundle covers; never its text."""

    id: str
    """Opaque id: 1 to 63 of a-z, 0-9, dot, dash and underscore."""
    data: str
    """Digest of the request's rows."""
    units: tuple[int, int] | None
    """First and one past the last hidden unit that belong to the request; None where all requests share them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """The base model that the bundle was trained on."""

    fingerprint: str
    """Digest of weights and architecture, `eul_serve.format.fingerprint`."""
    architecture: str
    """Class name in the model's config, e.g. LlamaForCausalLM."""
    tokenizer: str
    """Digest of the tokenizer's files."""
    chat_template: str | None
    """Digest of the chat template's text; None where the tokenizer has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file that belongs to the bundle."""

    sha256: str
    """Digest, `sha256:<hex>`."""
    size: int
    """Size in bytes."""


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
            raise BundleFormatError(f"manifest.json: requests: expected 1 to {MAX_REQUESTS}, found {len(self.requests)}")
        if len(self.request_ids) != len(self.requests):
            raise BundleFormatError("manifest.json: requests: an id occurs twice")

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

        Raises:
            InputError: A setting or metric is not plain JSON, or not finite.
        """
        try:
            return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise InputError(f"manifest: settings and metrics must be plain, finite JSON: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Parse `manifest.json`.

        Raises:
            BundleFormatError: Not canonical JSON, an unknown or missing key, or a bad value.
        """
        found = parse_object(data, "manifest.json")
        check_keys(found, _MANIFEST_KEYS, "manifest.json")
        try:
            manifest = cls(
                **{
                    **found,
                    "base": _base(found["base"]),
                    "requests": tuple(_request(raw) for raw in found["requests"]),
                    "parents": tuple(check_digest(str(parent)) for parent in found["parents"]),
                    "files": _files(found["files"]),
                    "artifacts": _files(found["artifacts"]),
                }
            )
        except InputError as error:
            raise BundleFormatError(f"manifest.json: {error}") from error
        if manifest.to_bytes() != data:
            raise BundleFormatError("manifest.json: expected canonical JSON (sorted keys, no spaces), found another form")
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


def _base(raw: dict[str, Any]) -> BaseModel:
    template = raw.get("chat_template")
    keys = {item.name: str for item in fields(BaseModel)}
    check_keys({**raw, "chat_template": template or ""}, dict(keys), "manifest.json: base")
    for digest in (raw["fingerprint"], raw["tokenizer"], *([template] if template is not None else [])):
        check_digest(digest)
    return BaseModel(**raw)


def _request(raw: Any) -> ForgottenRequest:
    where = "manifest.json: request"
    if not isinstance(raw, dict):
        raise BundleFormatError(f"{where}: expected an object, found {type(raw).__name__}")
    units = raw.get("units")
    check_keys({**raw, "units": units or []}, {"id": str, "data": str, "units": list}, where)
    if units is not None and not (
        len(units) == 2 and all(type(unit) is int for unit in units) and 0 <= units[0] < units[1]
    ):
        raise BundleFormatError(f"{where} {raw['id']!r}: units: expected [first, end], found {units!r:.100}")
    check_digest(raw["data"])
    return ForgottenRequest(
        id=check_name(raw["id"], "request"), data=raw["data"], units=None if units is None else (units[0], units[1])
    )


def _files(raw: dict[str, Any]) -> dict[str, FileEntry]:
    entries = {}
    for name, value in raw.items():
        where = f"manifest.json: file {name[:100]!r}"
        if "/" in name or name in {"", ".", "..", "manifest.json"} or "\x00" in name:
            raise BundleFormatError(f"{where}: expected the plain name of a file beside the manifest")
        if not isinstance(value, dict):
            raise BundleFormatError(f"{where}: expected an object, found {type(value).__name__}")
        check_keys(value, {"sha256": str, "size": int}, where)
        if value["size"] < 0:
            raise BundleFormatError(f"{where}: size: expected 0 or more, found {value['size']}")
        entries[name] = FileEntry(sha256=check_digest(value["sha256"]), size=value["size"])
    return entries


def round_metric(value: float, digits: int = 6) -> float | None:
    """Round a measured number for a manifest; None for one that JSON cannot hold."""
    return round(value, digits) if math.isfinite(value) else None
