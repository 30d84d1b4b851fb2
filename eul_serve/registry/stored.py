"""A registry on any store: what a revision is, in which order things appear, and what may be moved where.

A publication claims what it is about to name, puts the blobs that are missing, writes the log, and makes the manifest's
record, which is the moment at which the revision exists; an alias moves last, logged and then made. So nothing is seen
that is not logged, and a client killed anywhere leaves blobs that nothing names, or an entry of the log whose act did
not come about; never half a revision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Literal

from eul_serve.errors import BundleFormatError, InputError, NotFoundError
from eul_serve.format import Bundle, FileEntry, check_digest, check_name
from eul_serve.format.composite import check_passed
from eul_serve.registry.aliases import Why
from eul_serve.registry.base import RESERVED_NAMES, OnBytes, Published
from eul_serve.registry.blobs import count, read_chunks
from eul_serve.registry.claims import Claims
from eul_serve.registry.orders import OrderAct
from eul_serve.registry.reader import Reader, at_once, manifest_key, signature_key
from eul_serve.registry.store import Store


class StoredRegistry(Reader):
    """A `Registry` on a store; safe for many readers and writers at once."""

    def __init__(self, store: Store, recheck_seconds: float = 30.0) -> None:
        """Take a store, in which there may be no registry yet.

        Args:
            store: The store.
            recheck_seconds: How long a registry that was there is taken to be there still.
        """
        super().__init__(store, recheck_seconds)
        self.claims = Claims(store)

    def publish(
        self,
        bundle: Bundle,
        name: str,
        alias: str | None = None,
        *,
        with_statistics: bool = False,
        allow_unforget: str | None = None,
        actor: str | None = None,
        dry_run: bool = False,
        on_bytes: OnBytes | None = None,
        signatures: Sequence[bytes] = (),
    ) -> Published:
        """Store a bundle under a name and, last, move an alias to it. Publishing again changes nothing."""
        _check_target(name, alias)
        check_passed(bundle.manifest)
        why = Why(act="publish", actor=actor, reason=allow_unforget)
        files = _files(bundle, with_statistics)
        here = self.mark.may_be_made()
        if here:
            self.orders.standing().check_usable(name, bundle.revision)
        new = not (here and self._has(name, bundle.revision))
        moved = alias is not None and self.moves.check(name, alias, bundle.manifest, why.reason) is not None
        if not dry_run:
            self.mark.make()
            with self.claims.claimed([bundle.revision, *(entry.sha256 for entry in files.values())]) as claim:
                self.orders.standing().check_usable(name, bundle.revision)  # a collector may just have deleted it
                self._put_all(bundle, name, files, on_bytes)
                self._reveal(bundle, name, actor, claim)
                for signature in signatures:
                    self.store.create(signature_key(name, bundle.revision, signature), signature)
                if alias is not None:
                    may = self._may(f"{name}:{alias}", bundle.revision, claim)
                    moved = self.moves.move(name, alias, bundle.manifest, why, may)
        return Published(name=name, revision=bundle.revision, new=new, moved=moved)

    def promote(
        self, name: str, revision: str, alias: str, *, allow_unforget: str | None = None, actor: str | None = None
    ) -> bool:
        """Move an alias to a published revision; return whether it pointed elsewhere before."""
        _check_target(name, alias)
        why = Why(act="promote", actor=actor, reason=allow_unforget)
        self.mark.check()  # a claim must not be the first thing in a directory
        with self.claims.claimed([check_digest(revision)]) as claim:
            manifest = self.manifest(name, revision)
            may = self._may(f"{name}:{alias}", revision, claim)
            may()
            return self.moves.move(name, alias, manifest, why, may)

    def rollback(self, name: str, alias: str, *, allow_unforget: str | None = None, actor: str | None = None) -> str:
        """Move an alias back to where it pointed before its current target; return that revision."""
        _check_target(name, alias)
        why = Why(act="rollback", actor=actor, reason=allow_unforget)
        self.revisions(name)
        while True:
            target = self.moves.earlier(name, alias)
            with self.claims.claimed([target]) as claim:
                may = self._may(f"{name}:{alias}", target, claim)
                may()
                if self.moves.move_back(name, alias, target, why, may):
                    return target

    def order(self, act: OrderAct, digest: str, reason: str, actor: str | None = None) -> bool:
        """Hold, ban or delete a revision, or ban a signer; or end that. Return whether it changed what stands."""
        self.mark.check()
        # A collector that is at work has read its orders: a hold counts from its end.
        with self.claims.claimed([digest]) if act == "hold" else nullcontext():
            return self.orders.give(act, digest, reason, actor)

    def _may(self, where: str, revision: str, claim: Callable[[], None]) -> Callable[[], None]:
        """Return what refuses to name a revision that was banned meanwhile, or that no claim may keep any more."""

        def may() -> None:
            claim()
            self.orders.standing().check_usable(where, revision)

        return may

    def _has(self, name: str, revision: str) -> bool:
        return self._found(name, revision) == "whole"

    def _found(self, name: str, revision: str) -> Literal["whole", "damaged", "missing"]:
        # Any other error says nothing of the manifest, and nobody may remove it for that.
        try:
            self.manifest(name, revision)
        except NotFoundError:
            return "missing"
        except BundleFormatError:
            return "damaged"
        return "whole"

    def _put_all(self, bundle: Bundle, name: str, files: Mapping[str, FileEntry], on_bytes: OnBytes | None) -> None:
        def put(file: str, entry: FileEntry) -> None:
            if self.store.holds(name, entry):
                count(entry.size, on_bytes)
                return
            try:
                self.store.put(name, entry, partial(read_chunks, bundle.path / file, on_bytes))
            except BundleFormatError as error:
                raise BundleFormatError(f"file {file!r}: {error}; it changed after it was read") from error

        at_once(partial(put, file, entry) for file, entry in files.items())

    def _reveal(self, bundle: Bundle, name: str, actor: str | None, claim: Callable[[], None]) -> None:
        """Make a revision exist whose blobs are all there."""
        found = self._found(name, bundle.revision)
        if found == "whole":
            return
        self.log.append("store", actor=actor, name=name, revision=bundle.revision)
        key = manifest_key(name, bundle.revision)
        if found == "damaged":
            self._clear(name, bundle.revision)
        claim()
        if not self.store.create(key, bundle.manifest.to_bytes()):
            raise BundleFormatError(f"{self.store.url}: {'/'.join(key)} was just damaged; publish the bundle again")

    def _clear(self, name: str, revision: str) -> None:
        """Remove a damaged manifest, and never the whole one that another publisher has put in its place."""
        with self.claims.repairing(revision) as ours:
            if self._found(name, revision) == "damaged":
                ours()
                self.store.remove(manifest_key(name, revision))


def _files(bundle: Bundle, with_statistics: bool) -> dict[str, FileEntry]:
    if not with_statistics:
        return dict(bundle.manifest.files)
    missing = [file for file in bundle.manifest.artifacts if not (bundle.path / file).exists()]
    if missing or not bundle.manifest.artifacts:
        raise InputError(
            f"bundle {str(bundle.path)!r}: --with-statistics: no {missing[0] if missing else 'fusion statistics'}; "
            "publish without it, or publish the directory that `eul-train` wrote"
        )
    return {**bundle.manifest.files, **bundle.manifest.artifacts}


def _check_target(name: str, alias: str | None) -> None:
    if check_name(name, "bundle") in RESERVED_NAMES:
        raise InputError(f"bundle name {name!r}: means the base model wherever an adapter is named; choose another")
    if alias is not None:
        check_name(alias, "alias")
