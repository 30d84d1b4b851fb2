"""Verified bundles on a server's disk, one directory for each revision.

    <root>/sha256/<hex>/      exactly the published files of one revision and its manifest
    <root>/locks/  <root>/tmp/  <root>/users/

An engine loads bundles only from here. The path holds the digest, so that prefix-cache blocks of two revisions can
never share a key. With a bound, what comes makes the least recently used leave that no process uses.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from eul_serve.errors import BundleFormatError, BundleMismatchError, EulError, InputError, NotFoundError
from eul_serve.format import Bundle, Manifest, check_digest, read_bundle
from eul_serve.format.bundle import MANIFEST_FILE
from eul_serve.registry.base import Registry
from eul_serve.registry.cache_room import CacheRoom, mark_used, remove
from eul_serve.registry.disk import disk_errors
from eul_serve.registry.tree import Tree


class Cache:
    """Verified bundles below one directory; safe for several processes, and for kills."""

    def __init__(self, root: Path, max_bytes: int | None = None) -> None:
        """Take a directory, which is made by the first pull.

        Args:
            root: The directory.
            max_bytes: How many bytes all revisions together may have; None sets no bound.

        Raises:
            InputError: The bound is none.
        """
        if max_bytes is not None and max_bytes < 1:
            raise InputError(f"cache: expected room for 1 byte or more, found {max_bytes}")
        self._root, self._max_bytes = root, max_bytes
        self._room: CacheRoom | None = None

    def pull(self, registry: Registry, name: str, revision: str, base_fingerprint: str | None = None) -> Bundle:
        """Return a verified bundle on this machine, fetching it where it is missing or damaged.

        Fusion statistics are never fetched. Nobody removes the bundle to make room before this process has released
        it as often as it has pulled it, or has ended.

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
            CapacityError: The disk is full, or the bundle does not fit beside what is in use.
        """
        digest = check_digest(revision).removeprefix("sha256:")
        with disk_errors(f"cache {str(self._root)!r}"):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            tree = self._tree()
            with tree.locked("locks", f"{digest}.lock"), tree.directory("sha256", create=True):
                target = tree.root / "sha256" / digest
                if (bundle := _found(target, revision, base_fingerprint)) is not None:
                    self._room_of(tree).use(digest)
                    return bundle
                manifest = _wanted(registry, name, revision, base_fingerprint)
                self._room_of(tree).make(digest, _size(manifest))
                try:
                    return _fetch(registry, name, revision, tree, base_fingerprint)
                except BaseException:
                    self._room_of(tree).release(digest)
                    raise

    def release(self, revision: str) -> None:
        """Say that one pull of this process is not used any more; from then on the bundle may leave.

        Args:
            revision: What was pulled, `sha256:<hex>`.
        """
        if self._room is not None:
            with disk_errors(f"cache {str(self._root)!r}"):
                self._room.release(check_digest(revision).removeprefix("sha256:"))

    def close(self) -> None:
        """Use nothing any more, as the end of the process would."""
        if self._room is not None:
            self._room.close()

    def remove(self, revision: str) -> bool:
        """Remove a revision from this machine, whoever uses it.

        Args:
            revision: The revision, `sha256:<hex>`.

        Returns:
            Whether it was here.
        """
        digest = check_digest(revision).removeprefix("sha256:")
        if not self._root.exists():
            return False
        with disk_errors(f"cache {str(self._root)!r}"):
            tree = self._tree()
            with tree.locked("locks", f"{digest}.lock"):
                return self._room_of(tree).remove(digest)

    def _tree(self) -> Tree:
        return Tree(Path(os.path.realpath(self._root)))

    def _room_of(self, tree: Tree) -> CacheRoom:
        if self._room is None:
            self._room = CacheRoom(tree, self._max_bytes)
        return self._room


def _found(target: Path, revision: str, base_fingerprint: str | None) -> Bundle | None:
    """Return the bundle in the cache, or None where it must be fetched."""
    try:
        return _verify(target, revision, base_fingerprint)
    except BundleMismatchError:
        raise
    except EulError:
        return None


def _wanted(registry: Registry, name: str, revision: str, base_fingerprint: str | None) -> Manifest:
    """Return the manifest of what is to be fetched, or raise where it was made for another base model."""
    manifest = registry.manifest(name, revision)
    base = manifest.base.fingerprint
    if base_fingerprint is not None and base != base_fingerprint:
        raise BundleMismatchError(
            f"{name}@{revision}: made for base model {base}, but this model is {base_fingerprint}; serve the model "
            "that the bundle was trained on, or train again"
        )
    return manifest


def _size(manifest: Manifest) -> int:
    return len(manifest.to_bytes()) + sum(entry.size for entry in manifest.files.values())


def _fetch(registry: Registry, name: str, revision: str, tree: Tree, base_fingerprint: str | None) -> Bundle:
    digest = revision.removeprefix("sha256:")
    target, part = tree.root / "sha256" / digest, tree.root / "tmp" / digest
    with tree.directory("tmp", create=True):
        remove(part)  # of a process killed while it pulled
    try:
        registry.fetch(name, revision, part)
        pulled = _verify(part, revision, base_fingerprint)
        remove(target)
        os.rename(part, target)
        mark_used(target)
    finally:
        remove(part)
    return replace(pulled, path=target)


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
