"""Writing a bundle directory: whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from eul_serve.errors import CapacityError, EulError, InputError
from eul_serve.format.bundle import MANIFEST_FILE, Bundle, read_bundle
from eul_serve.format.digest import digest_bytes
from eul_serve.format.listing import FileEntry, check_file_name
from eul_serve.format.manifest import Manifest

RUN_FILE = "run.json"
"""Clock times, host and paths of a run; beside the bundle, never listed and never published."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def describe_files(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """Return the manifest's entries for files that are still in memory."""
    return {name: FileEntry(sha256=digest_bytes(data), size=len(data)) for name, data in files.items()}


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle directory whole or not at all, and read it back with every check.

    A killed writer leaves at most a directory `.<name>.<8 hex digits>.part` beside it, which nothing reads.

    Args:
        path: The directory to make; it must not exist, or be empty.
        manifest: The manifest, whose digests cover `files`.
        files: Contents by file name, artifacts and `run.json` included.

    Returns:
        The bundle as read back.

    Raises:
        InputError: The directory exists and is not empty, or cannot be made.
        CapacityError: The disk is full.
        BundleFormatError: The contents are not a valid bundle.
    """
    for name in files:
        if name != RUN_FILE:
            check_file_name(name)
    try:
        target = Path(os.path.abspath(path))
        _check_target(target)
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            part.mkdir(parents=True)
            for name, data in {**files, MANIFEST_FILE: manifest.to_bytes()}.items():
                _write(part / name, data)
            bundle = read_bundle(part)
            _sync_directory(part)
            os.replace(part, target)
            _sync_directory(target.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except (OSError, ValueError) as error:
        raise _explain(path, error) from error
    return replace(bundle, path=path)


def _check_target(path: Path) -> None:
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir() or any(path.iterdir())):
        raise InputError(f"output {str(path)!r}: expected a new or empty directory; name another one or remove it")


def _write(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(path: Path, error: OSError | ValueError) -> EulError:
    if not isinstance(error, OSError):
        return InputError(f"output {str(path)!r}: not a path: {error}")
    if error.errno in _NO_ROOM:
        return CapacityError(f"output {str(path)!r}: cannot write: {error.strerror}; free space or name another place")
    return InputError(f"output {str(path)!r}: cannot write: {error.strerror}; name a new directory in a writable place")
