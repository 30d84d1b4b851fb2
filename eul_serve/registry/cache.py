"""Verified bundles on a server's disk, one directory for each revision.

    <root>/sha256/<hex>/      exactly the published files of one revision and its manifest
    <root>/locks/  <root>/tmp/

An engine loads bundles only from here. The path holds the digest, so that prefix-cache blocks of two revisions can
never share a key.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from eul_serve.errors import BundleFormatError, BundleMismatchError, EulError, NotFoundError
from eul_serve.format import Bundle, check_digest, read_bundle
from eul_serve.format.bundle import MANIFEST_FILE
from eul_serve.registry.base import Registry
from eul_serve.registry.disk import disk_errors
from eul_serve.registry.tree import Tree


class Cache:
    """Verified bundles below one directory; safe for several processes, and for kills."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def pull(self, registry: Registry, name: str, revision: str, base_fingerprint: str | None = None) -> Bundle:
        """Return a verified bundle on this machine, fetching it where it is missing or damaged.

        Fusion statistics are never fetched.

        Args:
            registry: Where to fetch from; not asked where the revision is here and whole.
            name: Name of the bundle.
            revision: Its revision, `sha256:<hex>`.
            base_fingerprint: Fingerprint of the model that it must have been made for; None accepts any.

        Returns:
            The bundle, at an absolute path without links and with the digest in it.

        Raises:
            NotFoundError: The registry has no such revision.
            BundleFormatError: The stored files are damaged or not a valid bundle.
            BundleMismatchError: It was made for another base model.
            CapacityError: The disk is full.
        """
        digest = check_digest(revision).removeprefix("sha256:")
        with disk_errors(f"cache {str(self._root)!r}"):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            tree = Tree(Path(os.path.realpath(self._root)))
            with tree.locked("locks", f"{digest}.lock"), tree.directory("sha256", create=True):
                target, part = tree.root / "sha256" / digest, tree.root / "tmp" / digest
                if (bundle := _found(target, revision, base_fingerprint)) is not None:
                    return bundle
                with tree.directory("tmp", create=True):
                    _remove(part)  # of a process killed while it pulled
                try:
                    pulled = _pull(registry, name, revision, part, base_fingerprint)
                    _remove(target)
                    os.rename(part, target)
                finally:
                    _remove(part)
                return replace(pulled, path=target)


def _found(target: Path, revision: str, base_fingerprint: str | None) -> Bundle | None:
    """Return the bundle in the cache, or None where it must be fetched."""
    try:
        return _verify(target, revision, base_fingerprint)
    except BundleMismatchError:
        raise
    except EulError:
        return None


def _pull(registry: Registry, name: str, revision: str, part: Path, base_fingerprint: str | None) -> Bundle:
    base = registry.manifest(name, revision).base.fingerprint
    if base_fingerprint is not None and base != base_fingerprint:
        raise BundleMismatchError(
            f"{name}@{revision}: made for base model {base}, but this model is {base_fingerprint}; serve the model "
            "that the bundle was trained on, or train again"
        )
    registry.fetch(name, revision, part)
    return _verify(part, revision, base_fingerprint)


def _verify(path: Path, revision: str, base_fingerprint: str | None) -> Bundle:
    if path.is_symlink() or not path.is_dir():
        raise NotFoundError(f"cache: no directory {str(path)!r}")
    bundle = read_bundle(path, base_fingerprint)
    if bundle.revision != revision:
        raise BundleFormatError(f"cache {str(path)!r}: expected {revision}, found {bundle.revision}")
    allowed = {*bundle.manifest.files, MANIFEST_FILE}
    if extra := sorted({entry.name for entry in path.iterdir()} - allowed):
        raise BundleFormatError(f"cache {str(path)!r}: found {extra[0]!r}, which the manifest does not list")
    return bundle


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
