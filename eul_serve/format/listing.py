"""The files that a manifest lists, each with its digest and size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from eul_serve.errors import BundleFormatError
from eul_serve.format.config import check_keys
from eul_serve.format.names import check_digest

MAX_FILES = 64

_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_NEVER_LISTED = ("manifest.json", "run.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file that belongs to the bundle."""

    sha256: str
    """Digest, `sha256:<hex>`."""
    size: int
    """Size in bytes."""


def parse_files(raw: dict[str, Any]) -> dict[str, FileEntry]:
    """Parse the manifest's `files` or `artifacts`.

    Args:
        raw: The entries as JSON.

    Returns:
        The entries by file name.

    Raises:
        BundleFormatError: A name is not plain, or an entry has other keys than digest and size.
        InputError: A digest is not acceptable.
    """
    if len(raw) > MAX_FILES:
        raise BundleFormatError(f"manifest.json: expected at most {MAX_FILES} files, found {len(raw)}")
    entries = {}
    for name, value in raw.items():
        where = f"manifest.json: file {name[:100]!r}"
        check_file_name(name)
        if not isinstance(value, dict):
            raise BundleFormatError(f"{where}: expected an object, found {type(value).__name__}")
        check_keys(value, {"sha256": str, "size": int}, where)
        if value["size"] < 0:
            raise BundleFormatError(f"{where}: size: expected 0 or more, found {value['size']}")
        entries[name] = FileEntry(sha256=check_digest(value["sha256"]), size=value["size"])
    return entries


def check_file_name(name: str) -> str:
    """Return the name of a file beside the manifest when it is acceptable.

    Args:
        name: The name to check.

    Returns:
        The name, unchanged.

    Raises:
        BundleFormatError: Not a plain file name, or the name of a file that no manifest lists.
    """
    if not _FILE.fullmatch(name) or name in _NEVER_LISTED:
        raise BundleFormatError(
            f"file {name[:100]!r}: expected the plain name of a file beside the manifest: 1 to 128 letters, digits, "
            f"'.', '_' and '-', not starting with '.', and none of {', '.join(_NEVER_LISTED)}"
        )
    return name
