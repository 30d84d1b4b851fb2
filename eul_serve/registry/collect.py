"""What may go from a registry: revisions nobody needs, blobs nothing names, and requests that must go altogether.

A collection never races a publisher (`claims`), and says before it removes. Whatever is removed is in the log first.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from eul_serve.errors import RefusedError
from eul_serve.format import Manifest
from eul_serve.registry.claims import Spared
from eul_serve.registry.orders import Standing
from eul_serve.registry.reader import manifest_key
from eul_serve.registry.stored import StoredRegistry

ORPHAN_SECONDS = 24 * 3600.0
"""How long the blobs of a publication that was cut off are kept, so that it may go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One revision, and why it stays."""

    name: str
    """Name of the bundle."""
    manifest: Manifest
    """Its manifest."""
    reason: str | None
    """Why it stays: aliased, held, served or published lately, claimed; None where it may go."""

    @property
    def reference(self) -> str:
        """`name@sha256:<hex>`."""
        return f"{self.name}@{self.manifest.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a collection removed, or with a dry run would."""

    removed: tuple[Found, ...]
    """Revisions that are gone."""
    kept: tuple[Found, ...]
    """Revisions that stay."""
    blobs: int
    """How many blobs are gone."""


class Collector:
    """Collects one registry."""

    def __init__(self, registry: StoredRegistry, keep_days: float = 30.0, actor: str | None = None) -> None:
        """Take a registry.

        Args:
            registry: The registry.
            keep_days: For how many days a revision stays after it was published, or was last behind an alias.
            actor: Who collects; recorded.
        """
        self._registry, self._keep_days, self._actor = registry, keep_days, actor

    def collect(self, *, dry_run: bool = False) -> Collection:
        """Remove what nobody needs.

        Args:
            dry_run: Only say what would go.

        Returns:
            What went.

        Raises:
            BundleFormatError: A manifest or an alias is damaged, so nobody can say what it needs; repair it first.
        """
        with self._registry.claims.collecting() as spared:
            found = list(self._revisions(spared))
            return self._remove(found, spared, dry_run)

    def delete_request(self, request: str, reason: str, *, dry_run: bool = False) -> Collection:
        """Remove every revision that covers a request, for good: none may be published again.

        Args:
            request: Id of the request.
            reason: Why; recorded.
            dry_run: Only say what would go.

        Returns:
            What went; `kept` has nothing.

        Raises:
            RefusedError: A revision that covers it is behind an alias, held or being published; names each.
        """
        with self._registry.claims.collecting() as spared:
            covering = [one for one in self._all() if request in one.manifest.request_ids]
            standing = self._registry.standing()
            self._check_free(request, covering, standing, spared())
            if not dry_run:
                for one in covering:
                    self._registry.order("delete", one.manifest.revision, reason, self._actor)
            return self._remove(covering, spared, dry_run)

    def _check_free(self, request: str, covering: Iterable[Found], standing: Standing, claimed: frozenset[str]) -> None:
        ways = {"aliased": "move the alias", "held": "`eul hold --release` it", "claimed": "wait until it is published"}
        stuck = []
        for one in covering:
            reason = self._needed(one.name, one.manifest, standing, claimed)
            if reason is not None:
                stuck.append(f"{one.reference} is {reason} ({ways[reason.split()[0]]})")
        if stuck:
            raise RefusedError(f"request {request!r} cannot be deleted: {'; '.join(stuck)}; nothing was removed")

    def _remove(self, found: list[Found], spared: Spared, dry_run: bool) -> Collection:
        going = [one for one in found if one.reason is None]
        gone = {(one.name, one.manifest.revision) for one in going}
        for one in going if not dry_run else ():
            spared()
            self._remove_revision(one)
        blobs = 0
        for name, digest in list(self._unnamed(gone)):
            if digest in spared():
                continue
            blobs += 1
            if not dry_run:
                self._registry.store.drop(name, digest)
        kept = tuple(one for one in found if one.reason is not None)
        return Collection(removed=tuple(going), kept=kept, blobs=blobs)

    def _remove_revision(self, one: Found) -> None:
        revision, store = one.manifest.revision, self._registry.store
        self._registry.log.append("collect", actor=self._actor, name=one.name, revision=revision)
        folder = ("names", one.name, "signatures", revision.removeprefix("sha256:"))
        for signature in store.list(*folder):
            store.remove((*folder, signature))
        store.remove(manifest_key(one.name, revision))

    def _unnamed(self, gone: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Yield the blobs that no revision but those that go names."""
        named, going, names = set(), set(), self._registry.store.list("names")
        for one in self._all():
            digests = {entry.sha256 for entry in (*one.manifest.files.values(), *one.manifest.artifacts.values())}
            into = going if (one.name, one.manifest.revision) in gone else named
            into |= {(place, digest) for digest in digests for place in ("", one.name)}
        for name, digest, age in self._registry.store.blobs(names):
            if (name, digest) not in named and ((name, digest) in going or age > ORPHAN_SECONDS):
                yield name, digest

    def _all(self) -> Iterator[Found]:
        for name in self._registry.names():
            for revision in self._registry.revisions(name):
                yield Found(name=name, manifest=self._registry.manifest(name, revision), reason=None)

    def _revisions(self, spared: Spared) -> Iterator[Found]:
        standing, claimed = self._registry.standing(), spared()
        for one in self._all():
            reason = self._needed(one.name, one.manifest, standing, claimed) or self._lately(one.name, one.manifest)
            yield Found(name=one.name, manifest=one.manifest, reason=reason)

    def _needed(self, name: str, manifest: Manifest, standing: Standing, claimed: frozenset[str]) -> str | None:
        for alias, state in self._registry.aliases(name).items():
            if state.revision == manifest.revision:
                return f"aliased by {name}:{alias}"
        if order := standing.held.get(manifest.revision):
            return f"held since {order.at}: {order.reason}"
        return "claimed by a publication under way" if manifest.revision in claimed else None

    def _lately(self, name: str, manifest: Manifest) -> str | None:
        age = self._registry.store.age(manifest_key(name, manifest.revision))
        if age is None or age < self._keep_days * 86400:
            return f"published less than {self._keep_days:g} days ago"
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=self._keep_days)
        for alias, state in self._registry.aliases(name).items():
            ends = [move.at for move in state.history[1:]]
            for move, end in zip(state.history, ends, strict=False):
                if move.revision == manifest.revision and datetime.datetime.fromisoformat(end) > since:
                    return f"behind {name}:{alias} less than {self._keep_days:g} days ago"
        return None
