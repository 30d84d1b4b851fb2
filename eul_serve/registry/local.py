"""A registry in a directory, local or shared.

    registry.json                            {"layout": 1}
    blobs/sha256/<hex>                       files of bundles, by digest
    names/<name>/revisions/<hex>.json        canonical manifests, by digest
    names/<name>/aliases/<alias>.json        where each alias points, with its history
    log.jsonl                                every act, one line each
    locks/  tmp/                             of writers; `tmp` must be on the same file system

A publication stages everything in `tmp`, writes the log, renames the blobs, then the manifest; an alias is moved the
same way: staged, logged, renamed. So nothing is seen that is not logged, and a process killed anywhere leaves blobs
that nothing names, or a line of the log whose act did not come about; never half a revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eul_serve.errors import BundleFormatError, EulError, InputError, NotFoundError
from eul_serve.format import Bundle, FileEntry, Manifest, Reference, check_digest, check_name
from eul_serve.format.bundle import MANIFEST_FILE
from eul_serve.format.composite import check_passed
from eul_serve.format.config import parse_object
from eul_serve.format.digest import digest_bytes
from eul_serve.format.files import MAX_TEXT_BYTES
from eul_serve.registry.aliases import Aliases, Why
from eul_serve.registry.base import RESERVED_NAMES, AliasState, OnBytes, Published
from eul_serve.registry.blobs import Blobs, write_new
from eul_serve.registry.disk import disk_errors
from eul_serve.registry.tree import STAGING, Staging, Tree, staging

MARK_FILE = "registry.json"
LAYOUT = b'{"layout":1}'


class LocalRegistry:
    """A `Registry` in a directory; safe for many readers and writers at once."""

    def __init__(self, root: Path) -> None:
        self._tree = Tree(root)
        self._blobs = Blobs(self._tree)
        self._aliases = Aliases(self._tree, self.manifest)

    def __repr__(self) -> str:
        return f"LocalRegistry({str(self._tree.root)!r})"

    def names(self) -> list[str]:
        """Return the names that have a revision, sorted."""
        with self._reading("names"):
            names = _valid(self._tree.list("names"))
            return [name for name in names if self._tree.list("names", name, "revisions")]

    def revisions(self, name: str) -> list[str]:
        """Return the revisions of a name, sorted."""
        with self._reading(f"bundle {name!r}"):
            files = self._tree.list("names", check_name(name, "bundle"), "revisions")
        if not files:
            raise NotFoundError(f"bundle {name!r}: no such name in this registry; `eul list` shows the names")
        return [f"sha256:{file.removesuffix('.json')}" for file in files]

    def manifest(self, name: str, revision: str) -> Manifest:
        """Return the verified manifest of a revision."""
        with self._reading(f"{name}@{revision}"):
            data = self._tree.read(*_manifest_parts(name, revision), limit=MAX_TEXT_BYTES)
        if (found := digest_bytes(data)) != revision:
            raise BundleFormatError(f"{name}@{revision}: its manifest has digest {found}; publish the bundle again")
        return Manifest.from_bytes(data)

    def alias_names(self, name: str) -> list[str]:
        """Return the names of a name's aliases, sorted; reads none of them."""
        with self._reading(f"bundle {name!r}"):
            files = self._tree.list("names", check_name(name, "bundle"), "aliases")
        return _valid(file[:-5] for file in files)

    def alias(self, name: str, alias: str) -> AliasState:
        """Return one alias of a name, whatever state its other aliases are in."""
        with self._reading(f"{name}:{alias}"):
            return self._aliases.state(name, alias)

    def aliases(self, name: str) -> dict[str, AliasState]:
        """Return all aliases of a name, sorted; a damaged one raises BundleFormatError."""
        return {alias: self._aliases.state(name, alias) for alias in self.alias_names(name)}

    def resolve(self, reference: Reference) -> str:
        """Return the revision that a reference means now."""
        revision = reference.revision
        if revision is None:
            revision = self.alias(reference.name, reference.alias or "").revision
        self.manifest(reference.name, revision)
        return revision

    def read_file(self, name: str, revision: str, file: str) -> bytes:
        """Return the verified bytes of one small file (config, card) of a revision."""
        entry = self.manifest(name, revision).files.get(file)
        if entry is None:
            raise NotFoundError(f"{name}@{revision}: no file {file!r}")
        if entry.size > MAX_TEXT_BYTES:
            raise InputError(f"{name}@{revision}: file {file!r} has {entry.size} bytes; fetch the bundle instead")
        return b"".join(self._blobs.stream(entry, f"{name}@{revision}: file {file!r}"))

    def fetch(self, name: str, revision: str, target: Path, *, with_statistics: bool = False) -> None:
        """Write the manifest and the verified files of a revision to a new directory, or nothing."""
        manifest = self.manifest(name, revision)
        wanted = {**manifest.files, **(manifest.artifacts if with_statistics else {})}
        with disk_errors(f"directory {str(target)!r}"):
            target.mkdir()
            try:
                write_new(target / MANIFEST_FILE, [manifest.to_bytes()])
                for file, entry in wanted.items():
                    write_new(target / file, self._blobs.stream(entry, f"{name}@{revision}: file {file!r}"))
            except BaseException:
                for path in target.iterdir():
                    path.unlink()
                target.rmdir()
                raise

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
    ) -> Published:
        """Store a bundle under a name and, last, move an alias to it. Publishing again changes nothing."""
        _check_target(name, alias)
        check_passed(bundle.manifest)
        why = Why(act="publish", actor=actor, reason=allow_unforget)
        files = _files(bundle, with_statistics)
        new = not self._has(name, bundle.revision)
        moved = alias is not None and self._aliases.check(name, alias, bundle.manifest, why.reason) is not None
        if not dry_run:
            with self._writing() as staged:
                self._mark(staged)
                self._stage(staged, bundle, name, files, on_bytes)
                if new:
                    self._aliases.record_publication(name, bundle.revision, actor)
                staged.place()
                if alias is not None:
                    moved = self._aliases.move(name, alias, bundle.manifest, why, staged)
        return Published(name=name, revision=bundle.revision, new=new, moved=moved)

    def promote(
        self, name: str, revision: str, alias: str, *, allow_unforget: str | None = None, actor: str | None = None
    ) -> bool:
        """Move an alias to a published revision; return whether it pointed elsewhere before."""
        _check_target(name, alias)
        why = Why(act="promote", actor=actor, reason=allow_unforget)
        manifest = self.manifest(name, revision)
        with self._writing() as staged:
            return self._aliases.move(name, alias, manifest, why, staged)

    def rollback(self, name: str, alias: str, *, allow_unforget: str | None = None, actor: str | None = None) -> str:
        """Move an alias back to where it pointed before its current target; return that revision."""
        _check_target(name, alias)
        why = Why(act="rollback", actor=actor, reason=allow_unforget)
        self.revisions(name)
        with self._writing() as staged:
            return self._aliases.move_back(name, alias, why, staged)

    def _has(self, name: str, revision: str) -> bool:
        try:
            self.manifest(name, revision)
        except EulError:
            return False  # missing or damaged: publishing stores it (again)
        return True

    def _stage(
        self, staged: Staging, bundle: Bundle, name: str, files: dict[str, FileEntry], on_bytes: OnBytes | None
    ) -> None:
        # The order of adding is the order of appearing: the manifest after all that it names.
        for file, entry in files.items():
            self._blobs.stage(staged, bundle.path / file, entry, on_bytes)
        staged.add([bundle.manifest.to_bytes()], *_manifest_parts(name, bundle.revision))

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        with disk_errors(f"registry {str(self._tree.root)!r}"):
            self._check_mark()
        with disk_errors(what, "`eul list` shows what is published"):
            yield

    @contextmanager
    def _writing(self) -> Iterator[Staging]:
        with disk_errors(f"registry {str(self._tree.root)!r}"):
            if self._tree.root.exists() and set(self._tree.list()) - {STAGING, "locks"}:
                self._check_mark()
            with staging(self._tree) as staged:
                yield staged

    def _mark(self, staged: Staging) -> None:
        if MARK_FILE not in self._tree.list():
            staged.add([LAYOUT], MARK_FILE)
            staged.place()

    def _check_mark(self) -> None:
        root = str(self._tree.root)
        try:
            mark = self._tree.read(MARK_FILE, limit=1 << 10)
        except FileNotFoundError:
            message = f"registry {root!r}: no registry there; `eul publish` makes one in a new or empty directory"
            raise NotFoundError(message) from None
        if (found := parse_object(mark, MARK_FILE)) != parse_object(LAYOUT, MARK_FILE):
            raise InputError(f"registry {root!r}: expected layout 1, found {found!s:.100}; use a newer eul")


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


def _manifest_parts(name: str, revision: str) -> tuple[str, ...]:
    digest = check_digest(revision).removeprefix("sha256:")
    return ("names", check_name(name, "bundle"), "revisions", f"{digest}.json")


def _valid(names: Iterable[str]) -> list[str]:
    """Return the names that follow the grammar: others in the directory are not ours."""
    found = []
    for name in names:
        try:
            found.append(check_name(name, "stored"))
        except InputError:
            continue
    return found
