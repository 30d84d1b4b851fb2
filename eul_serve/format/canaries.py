"""`canaries.json`: what a bundle must still hide whenever it is loaded, as digests and thresholds, never as text.

A canary is a question and an answer that the bundle is there to forget. Its text stays with whoever serves
(`eul_serve.format.canary_text`); the bundle has its digest, and how unlikely the answer must be with the bundle on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.config import check_keys, parse_object
from eul_serve.format.files import read_listed
from eul_serve.format.manifest import Manifest
from eul_serve.format.names import check_digest

CANARIES_FILE = "canaries.json"
CANARIES_VERSION = 1
MAX_CANARIES = 256
MAX_BYTES = 64 << 10
"""Far more than the longest file of `MAX_CANARIES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """One text that a bundle makes the model forget, and how well it must."""

    digest: str
    """Digest of the private text, its nonce included."""
    least_nats: float
    """Least negative log-likelihood of the answer with the bundle on, summed over its tokens; above 0."""

    def __post_init__(self) -> None:
        try:
            check_digest(self.digest)
        except InputError as error:
            raise BundleFormatError(f"{CANARIES_FILE}: {error}") from error
        if type(self.least_nats) is not float or not 0 < self.least_nats < math.inf:
            raise BundleFormatError(
                f"{CANARIES_FILE}: least_nats: expected a number above 0, found {self.least_nats!r:.40}"
            )


def dump_canaries(canaries: Iterable[Canary]) -> bytes:
    """Return the bytes of `canaries.json`: canonical JSON, sorted by digest.

    Args:
        canaries: The canaries, in any order.

    Returns:
        The bytes.
    """
    rows = [asdict(one) for one in sorted(canaries, key=lambda one: one.digest)]
    found = {"canaries": rows, "version": CANARIES_VERSION}
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def parse_canaries(data: bytes) -> tuple[Canary, ...]:
    """Parse `canaries.json`.

    Args:
        data: The bytes of the file.

    Returns:
        The canaries, sorted by digest.

    Raises:
        BundleFormatError: Not canonical JSON, an unknown or missing key, a bad value, a digest twice, none or too many.
    """
    found = parse_object(data, CANARIES_FILE)
    check_keys(found, {"canaries": list, "version": int}, CANARIES_FILE)
    if found["version"] != CANARIES_VERSION:
        raise BundleFormatError(f"{CANARIES_FILE}: version: expected {CANARIES_VERSION}, found {found['version']}")
    rows = found["canaries"]
    if not 1 <= len(rows) <= MAX_CANARIES:
        raise BundleFormatError(f"{CANARIES_FILE}: expected 1 to {MAX_CANARIES} canaries, found {len(rows)}")
    canaries = tuple(_parse_canary(row) for row in rows)
    if len({one.digest for one in canaries}) != len(canaries):
        raise BundleFormatError(f"{CANARIES_FILE}: a digest occurs twice")
    if dump_canaries(canaries) != data:
        raise BundleFormatError(
            f"{CANARIES_FILE}: expected canonical JSON (sorted keys and digests, no spaces), found another form"
        )
    return canaries


def read_canaries(path: Path, manifest: Manifest) -> tuple[Canary, ...]:
    """Read the canaries of a bundle with every check; none where its manifest lists no such file.

    Args:
        path: Directory of the bundle.
        manifest: Its manifest.

    Returns:
        The canaries, sorted by digest.

    Raises:
        BundleFormatError: The file is missing, a link, too large, differs from its entry, or breaks the format.
    """
    entry = manifest.files.get(CANARIES_FILE)
    if entry is None:
        return ()
    if entry.size > MAX_BYTES:
        raise BundleFormatError(f"file {CANARIES_FILE!r}: expected at most {MAX_BYTES} bytes, found {entry.size}")
    return parse_canaries(read_listed(path, CANARIES_FILE, entry))


def _parse_canary(raw: object) -> Canary:
    if not isinstance(raw, dict):
        raise BundleFormatError(f"{CANARIES_FILE}: canary: expected an object, found {type(raw).__name__}")
    check_keys(raw, {"digest": str, "least_nats": float}, f"{CANARIES_FILE}: canary")
    return Canary(**raw)
