"""Blobs, and the memory of which there are: OCI lists tags, but no blobs.

Before a blob is uploaded, a small manifest under the tag `_U<hex>` says that it is coming; afterwards the same tag
names it as a layer, so that the registry's own garbage collection keeps it until `drop`. So what a killed upload
leaves is found again: its tag is there, and a look tells whether the blob is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from eul_serve.errors import BundleFormatError, EulError
from eul_serve.format import FileEntry
from eul_serve.registry.oci.descriptor import Descriptor
from eul_serve.registry.oci.download import download
from eul_serve.registry.oci.image import Image
from eul_serve.registry.oci.records import Records
from eul_serve.registry.oci.repository import Repository
from eul_serve.registry.oci.shape import UPLOAD_TYPE, notes
from eul_serve.registry.oci.tags import UPLOAD, parts_of
from eul_serve.registry.oci.upload import upload
from eul_serve.registry.store import Opened


class Blobs:
    """The blobs of one registry, kept apart by name; safe for threads."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def holds(self, name: str, entry: FileEntry) -> bool:
        """Return whether a blob is there with the right size; its digest the registry checked when it was put."""
        return self._records.repository(name).size(entry.sha256) == entry.size

    def put(self, name: str, entry: FileEntry, source: Opened) -> None:
        """Upload a blob and remember it."""
        repository = self._records.repository(name)
        there = repository.size(entry.sha256) == entry.size
        self._records.remember(name)
        if not there:
            self._mark(repository, entry, ())
        try:
            upload(repository, entry, source, f"blob {entry.sha256}")
        except BaseException:
            if not there:
                with suppress(EulError):
                    self._unmark(repository, entry.sha256)
            raise
        if (found := repository.size(entry.sha256)) != entry.size:
            raise BundleFormatError(
                f"{repository} {entry.sha256}: uploaded {entry.size} bytes, and the registry has {found}; a registry "
                "keeps a damaged blob that it has: delete it in its storage and publish again"
            )
        layer = Descriptor(media_type="application/octet-stream", digest=entry.sha256, size=entry.size)
        self._mark(repository, entry, (layer,))

    def chunks(self, name: str, entry: FileEntry) -> Iterator[bytes]:
        """Yield a blob's bytes as they are stored."""
        return download(self._records.repository(name), entry)

    def blobs(self, names: Iterable[str]) -> Iterator[tuple[str, str, float]]:
        """Yield each blob of these names with its age, which is that of its last upload.

        Names that have blobs and no record are among them, asked for or not: a first publication that was killed left
        them, and nothing else knows of them.

        Args:
            names: Names of bundles.

        Yields:
            Name, digest and age in seconds.
        """
        left = [name for name in self._records.remembered() if not self._records.below(("names", name))]
        for name in sorted({*names, *left}):
            for digest, age in sorted(self._known(self._records.repository(name)).items()):
                yield name, digest, age

    def drop(self, name: str, digest: str) -> None:
        """Remove a blob, and then its mark: where this is cut off in between, it is still found."""
        repository = self._records.repository(name)
        repository.delete_blob(digest)
        self._unmark(repository, digest)

    def _known(self, repository: Repository) -> dict[str, float]:
        found: dict[str, float] = {}
        tags = repository.tags()
        for tag in tags:
            if tag.startswith(UPLOAD) and (image := self._image(repository, tag)):
                digest = f"sha256:{tag.removeprefix(UPLOAD)}"
                if image.layers or repository.size(digest) is not None:
                    found[digest] = self._records.age_of(image)
        for tag in tags:
            if (parts_of(tag) or ("",))[0] == "revisions" and (image := self._image(repository, tag)):
                for layer in image.layers:
                    if layer.digest not in found and repository.size(layer.digest) is not None:
                        found[layer.digest] = self._records.age_of(image)
        return found

    def _image(self, repository: Repository, tag: str) -> Image | None:
        stored = repository.manifest(tag)
        return Image.parse(stored.data, f"{repository} {tag}") if stored else None

    def _mark(self, repository: Repository, entry: FileEntry, layers: tuple[Descriptor, ...]) -> None:
        annotations = notes(("uploads", entry.sha256), repository.wire.now())
        image = Image(artifact_type=UPLOAD_TYPE, layers=layers, annotations=annotations)
        repository.put_manifest(_tag(entry.sha256), image.to_bytes())

    def _unmark(self, repository: Repository, digest: str) -> None:
        if stored := repository.manifest(_tag(digest)):
            repository.delete_manifest(stored.digest)


def _tag(digest: str) -> str:
    return UPLOAD + digest.removeprefix("sha256:")
