"""What may go from a registry: revisions nobody needs, blobs nothing names, and requests that must go altogether.

A collection never races a publisher (`claims`), and says before it removes. Whatever is removed is in the log first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from eul_serve.errors import NotFoundError, RefusedError
from eul_serve.format import Manifest
from eul_serve.registry.claims import Spared
from eul_serve.registry.needs import Needs
from eul_serve.registry.reader import manifest_key
from eul_serve.registry.stored import StoredRegistry

ORPHAN_SECONDS = 24 * 3600.0
"""How long the blobs of a publication that was cut off are kept, so that it may go on."""
KEEP_DAYS = 30.0
"""How many days a revision stays after it was published, or was last behind an alias."""
_THREADS = 8
"""Questions to a store that are on their way at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One revision, and why it stays."""

    name: str
    """Name of the bundle."""
    manifest: Manifest
    """Its manifest."""
    reason: str | None
    """Why it stays: aliased, held, claimed, published or behind an alias lately; None where it may go."""

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

    def __init__(self, registry: StoredRegistry, keep_days: float = KEEP_DAYS, actor: str | None = None) -> None:
        """Take a registry.

        Args:
            registry: The registry.
            keep_days: For how many days a revision stays after it was published, or was last behind an alias.
            actor: Who collects; recorded.
        """
        self._registry, self._keep_days, self._actor = registry, keep_days, actor
        self._known: dict[tuple[str, str], Manifest] = {}

    def collect(self, *, dry_run: bool = False) -> Collection:
        """Remove what nobody needs.

        Args:
            dry_run: Only say what would go; writes nothing.

        Returns:
            What went.

        Raises:
            BundleFormatError: A manifest or an alias is damaged, so nobody can say what it needs; repair it first.
        """
        self._read_ahead()
        with self._registry.claims.collecting(dry_run=dry_run) as spared:
            found = self._all()
            needs = Needs(self._registry, (one.name for one in found), spared())

            def judged(one: Found) -> Found:
                reason = needs.now(one.name, one.manifest) or needs.lately(one.name, one.manifest, self._keep_days)
                return replace(one, reason=reason)

            with ThreadPoolExecutor(_THREADS, "eul-collect") as pool:
                found = list(pool.map(judged, found))
            return self._remove(found, spared, dry_run)

    def delete_request(self, request: str, reason: str, *, dry_run: bool = False) -> Collection:
        """Remove every revision that covers a request, for good: none may be published again.

        Args:
            request: Id of the request.
            reason: Why; recorded.
            dry_run: Only say what would go; writes nothing.

        Returns:
            What went; `kept` has nothing.

        Raises:
            RefusedError: A revision that covers it is behind an alias, held or being published; names each.
        """
        self._read_ahead()
        with self._registry.claims.collecting(dry_run=dry_run) as spared:
            covering = [one for one in self._all() if request in one.manifest.request_ids]
            _check_free(request, covering, Needs(self._registry, (one.name for one in covering), spared()))
            if not dry_run:
                for one in covering:
                    self._registry.order("delete", one.manifest.revision, reason, self._actor)
            return self._remove(covering, spared, dry_run)

    def _remove(self, found: list[Found], spared: Spared, dry_run: bool) -> Collection:
        going = [one for one in found if one.reason is None]
        unnamed = [blob for blob in self._unnamed(going) if blob[1] not in spared()]
        for one in going if not dry_run else ():
            self._remove_revision(one, spared)
        for name, digest in unnamed if not dry_run else ():
            spared()
            self._registry.store.drop(name, digest)
        kept = tuple(one for one in found if one.reason is not None)
        return Collection(removed=tuple(going), kept=kept, blobs=len(unnamed))

    def _remove_revision(self, one: Found, spared: Spared) -> None:
        revision, store = one.manifest.revision, self._registry.store
        self._registry.log.append("collect", actor=self._actor, name=one.name, revision=revision)
        spared()  # the log may have taken long
        store.remove(manifest_key(one.name, revision))
        # Signatures go after their revision: a collector that is killed here leaves none that is listed without them.
        folder = ("names", one.name, "signatures", revision.removeprefix("sha256:"))
        for signature in store.list(*folder):
            spared()
            store.remove((*folder, signature))

    def _unnamed(self, going: Iterable[Found]) -> Iterator[tuple[str, str]]:
        """Yield the blobs that no revision but those that go names."""
        gone = {(one.name, one.manifest.revision) for one in going}
        named: set[tuple[str, str]] = set()
        leaving: set[tuple[str, str]] = set()
        # All that was ever seen counts as there: where a share vanishes for a moment, nothing of it may go.
        for (name, revision), manifest in self._known.items():
            digests = {entry.sha256 for entry in (*manifest.files.values(), *manifest.artifacts.values())}
            into = leaving if (name, revision) in gone else named
            into |= {(place, digest) for digest in digests for place in ("", name)}
        for name, digest, age in self._registry.store.blobs(self._registry.store.list("names")):
            if (name, digest) not in named and ((name, digest) in leaving or age > ORPHAN_SECONDS):
                yield name, digest

    def _read_ahead(self) -> None:
        """Read every manifest before publishers have to wait."""
        self._known.clear()
        self._all()

    def _all(self) -> list[Found]:
        """Return all revisions that are there; what was read once is not read again."""
        there = list(self._listed())
        new = [pair for pair in there if pair not in self._known]
        with ThreadPoolExecutor(_THREADS, "eul-collect") as pool:
            read = zip(new, pool.map(self._manifest, new), strict=True)
            self._known |= {pair: manifest for pair, manifest in read if manifest is not None}
        return [Found(name=pair[0], manifest=self._known[pair], reason=None) for pair in there if pair in self._known]

    def _listed(self) -> Iterator[tuple[str, str]]:
        for name in self._registry.names():
            with suppress(NotFoundError):  # another collector was faster
                yield from ((name, revision) for revision in self._registry.revisions(name))

    def _manifest(self, pair: tuple[str, str]) -> Manifest | None:
        try:
            return self._registry.manifest(*pair)
        except NotFoundError:
            return None  # another collector was faster


def _check_free(request: str, covering: Iterable[Found], needs: Needs) -> None:
    ways = {"aliased": "move the alias", "held": "`eul hold --release` it", "claimed": "wait until it is published"}
    stuck = []
    for one in covering:
        reason = needs.now(one.name, one.manifest)
        if reason is not None:
            stuck.append(f"{one.reference} is {reason} ({ways[reason.split()[0]]})")
    if stuck:
        raise RefusedError(f"request {request!r} cannot be deleted: {'; '.join(stuck)}; nothing was removed")
