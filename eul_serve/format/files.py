"""The files of a bundle directory, read one by one and checked against the entries of its manifest."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.digest import digest_bytes, digest_open, reading
from eul_serve.format.listing import FileEntry
from eul_serve.format.manifest import Manifest

MAX_TEXT_BYTES = 4 << 20


def check_files(path: Path, manifest: Manifest, skip: Collection[str] = ()) -> None:
    """Check size and digest of every file that a manifest lists, and of artifacts where they are present.

    Args:
        path: The directory.
        manifest: The manifest.
        skip: Names of files that were checked already.

    Raises:
        BundleFormatError: A file is missing, a link, or differs from its digest.
    """
    present = {name: entry for name, entry in manifest.artifacts.items() if os.path.lexists(path / name)}
    for name, entry in {**manifest.files, **present}.items():
        if name in skip:
            continue
        try:
            with reading(path / name) as file:
                size = os.fstat(file.fileno()).st_size
                check_entry(name, entry, size, None)
                check_entry(name, entry, size, digest_open(file))
        except InputError as error:
            raise BundleFormatError(str(error)) from error


def check_entry(name: str, entry: FileEntry, size: int, digest: str | None) -> None:
    """Check a file against its entry.

    Args:
        name: Name of the file.
        entry: What the manifest says of it.
        size: Its size in bytes.
        digest: Its digest; None where it is not known yet.

    Raises:
        BundleFormatError: They differ.
    """
    if size != entry.size:
        raise BundleFormatError(f"file {name!r}: expected {entry.size} bytes, found {size}; the file was changed")
    if digest is not None and digest != entry.sha256:
        raise BundleFormatError(f"file {name!r}: expected {entry.sha256}, found {digest}; the file was changed")


def read_listed(path: Path, name: str, entry: FileEntry) -> bytes:
    """Read a small listed file and check it: what was hashed is what is returned.

    Args:
        path: The directory.
        name: Name of the file.
        entry: What the manifest says of it.

    Returns:
        Its bytes.

    Raises:
        BundleFormatError: The file is missing, a link, too large, or differs from its entry.
    """
    try:
        data = read_text(path / name)
    except InputError as error:
        raise BundleFormatError(str(error)) from error
    check_entry(name, entry, len(data), digest_bytes(data))
    return data


def read_large(path: Path, name: str, entry: FileEntry) -> bytes:
    """Read a listed file of any size and check it: what was hashed is what is returned.

    Args:
        path: The directory.
        name: Name of the file.
        entry: What the manifest says of it.

    Returns:
        Its bytes.

    Raises:
        InputError: The file is missing, a link, or not regular.
        BundleFormatError: It differs from its entry.
    """
    with reading(path / name) as file:
        data = file.read(entry.size + 1)
    if len(data) != entry.size:
        found = f"{len(data)}" if len(data) < entry.size else "more"
        raise BundleFormatError(f"file {name!r}: expected {entry.size} bytes, found {found}; the file was changed")
    check_entry(name, entry, len(data), digest_bytes(data))
    return data


def read_text(path: Path) -> bytes:
    """Read a small file of a bundle, at most 4 MiB, without following links.

    Args:
        path: The file.

    Returns:
        Its bytes.

    Raises:
        InputError: The file is missing, a link, or not regular.
        BundleFormatError: The file is too large.
    """
    with reading(path) as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise BundleFormatError(f"file {path.name!r}: expected at most {MAX_TEXT_BYTES} bytes")
    return data
