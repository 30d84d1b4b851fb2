"""Reading a registry, on any store: nothing is returned that does not match its digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from eul_serve.errors import BundleFormatError, EulError, InputError, NotFoundError
from eul_serve.format import FileEntry, Manifest, Reference, check_digest, check_name
from eul_serve.format.bundle import MANIFEST_FILE
from eul_serve.format.digest import digest_bytes
from eul_serve.format.files import MAX_TEXT_BYTES
from eul_serve.registry.aliases import Aliases
from eul_serve.registry.base import AliasState, OnBytes
from eul_serve.registry.blobs import checked, counted, write_new
from eul_serve.registry.disk import disk_errors
from eul_serve.registry.log import ActLog
from eul_serve.registry.mark import Mark
from eul_serve.registry.orders import Orders, Standing
from eul_serve.registry.store import Key, Store
from eul_serve.registry.writing import sync_directory

THREADS = 4
"""Files of a bundle that are on their way at once."""


class Reader:
    """What a registry on a store tells; safe for several threads."""

    def __init__(self, store: Store, recheck_seconds: float = 30.0) -> None:
        """Take a store, in which there may be no registry yet.

        Args:
            store: The store.
            recheck_seconds: How long a registry that was there is taken to be there still.
        """
        self.store = store
        self.log = ActLog(store)
        self.mark = Mark(store, recheck_seconds)
        self.orders = Orders(store, self.log)
        self.moves = Aliases(store, self.manifest, self.log)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store.url})"

    def names(self) -> list[str]:
        """Return the names that have a revision, sorted."""
        self.mark.check()
        names = _valid(self.store.list("names"))
        return [name for name in names if self.store.list("names", name, "revisions")]

    def revisions(self, name: str) -> list[str]:
        """Return the revisions of a name, sorted."""
        self.mark.check()
        files = self.store.list("names", check_name(name, "bundle"), "revisions")
        if not files:
            raise NotFoundError(f"bundle {name!r}: no such name in this registry; `eul list` shows the names")
        return [f"sha256:{file.removesuffix('.json')}" for file in files]

    def manifest(self, name: str, revision: str) -> Manifest:
        """Return the verified manifest of a revision."""
        self.mark.check()
        data = self.store.read(manifest_key(name, revision))
        if data is None:
            raise NotFoundError(f"{name}@{revision}: not found; `eul list` shows what is published")
        if len(data) > MAX_TEXT_BYTES or (found := digest_bytes(data)) != revision:
            found = f"{len(data)} bytes" if len(data) > MAX_TEXT_BYTES else found
            raise BundleFormatError(f"{name}@{revision}: its manifest has digest {found}; publish the bundle again")
        return Manifest.from_bytes(data)

    def alias_names(self, name: str) -> list[str]:
        """Return the names of a name's aliases, sorted; reads none of them."""
        self.mark.check()
        return _valid(self.moves.names(name))

    def alias(self, name: str, alias: str) -> AliasState:
        """Return one alias of a name, whatever state its other aliases are in."""
        self.mark.check()
        return self.moves.state(name, alias)

    def aliases(self, name: str) -> dict[str, AliasState]:
        """Return all aliases of a name, sorted; a damaged one raises BundleFormatError."""
        return {alias: self.moves.state(name, alias) for alias in self.alias_names(name)}

    def resolve(self, reference: Reference) -> str:
        """Return the revision that a reference means now."""
        revision = reference.revision
        if revision is None:
            revision = self.alias(reference.name, reference.alias or "").revision
        self.manifest(reference.name, revision)
        return revision

    def standing(self) -> Standing:
        """Return the orders that stand: what is held, banned and deleted."""
        self.mark.check()
        return self.orders.standing()

    def signatures(self, name: str, revision: str) -> tuple[bytes, ...]:
        """Return the signatures of a revision, unverified, in the order of their digests."""
        self.mark.check()
        folder = _signature_folder(name, revision)
        found = (self.store.read((*folder, file)) for file in self.store.list(*folder))
        return tuple(data for data in found if data is not None)

    def read_file(self, name: str, revision: str, file: str) -> bytes:
        """Return the verified bytes of one small file (config, card) of a revision."""
        entry = self.manifest(name, revision).files.get(file)
        if entry is None:
            raise NotFoundError(f"{name}@{revision}: no file {file!r}")
        if entry.size > MAX_TEXT_BYTES:
            raise InputError(f"{name}@{revision}: file {file!r} has {entry.size} bytes; fetch the bundle instead")
        return b"".join(self._stream(name, entry, f"{name}@{revision}: file {file!r}"))

    def fetch(
        self,
        name: str,
        revision: str,
        target: Path,
        *,
        with_statistics: bool = False,
        on_bytes: OnBytes | None = None,
    ) -> None:
        """Write the manifest and the verified files of a revision to a new directory, or nothing."""
        manifest = self.manifest(name, revision)
        wanted = {**manifest.files, **(manifest.artifacts if with_statistics else {})}
        with disk_errors(f"directory {str(target)!r}"):
            target.mkdir()
            try:
                write_new(target / MANIFEST_FILE, [manifest.to_bytes()])
                self._write_all(name, revision, target, wanted, on_bytes)
                sync_directory(target)
            except BaseException:
                for path in target.iterdir():
                    path.unlink()
                target.rmdir()
                raise

    def _write_all(
        self, name: str, revision: str, target: Path, wanted: Mapping[str, FileEntry], on_bytes: OnBytes | None
    ) -> None:
        def write(file: str, entry: FileEntry) -> None:
            stream = self._stream(name, entry, f"{name}@{revision}: file {file!r}")
            write_new(target / file, counted(stream, on_bytes))

        at_once(partial(write, file, entry) for file, entry in wanted.items())

    def _stream(self, name: str, entry: FileEntry, where: str) -> Iterable[bytes]:
        try:
            yield from checked(self.store.chunks(name, entry), entry, where)
        except EulError as error:
            raise BundleFormatError(f"{where}: {error}; publish the bundle again to repair the registry") from error


def manifest_key(name: str, revision: str) -> Key:
    """Return the path of a revision's manifest."""
    digest = check_digest(revision).removeprefix("sha256:")
    return ("names", check_name(name, "bundle"), "revisions", f"{digest}.json")


def signature_key(name: str, revision: str, signature: bytes) -> Key:
    """Return the path of a signature of a revision."""
    return (*_signature_folder(name, revision), f"{digest_bytes(signature).removeprefix('sha256:')}.json")


def _signature_folder(name: str, revision: str) -> Key:
    return ("names", check_name(name, "bundle"), "signatures", check_digest(revision).removeprefix("sha256:"))


def at_once(works: Iterable[partial[None]]) -> None:
    """Do works in some threads; raise the first error when all have ended."""
    with ThreadPoolExecutor(THREADS, "eul-files") as pool:
        for done in [pool.submit(work) for work in works]:
            done.result()


def _valid(names: Iterable[str]) -> list[str]:
    """Return the names that follow the grammar: others in a store are not ours."""
    found = []
    for name in names:
        try:
            found.append(check_name(name, "stored"))
        except InputError:
            continue
    return found
