"""Records as tagged manifests: read in one or two requests, made by one writer at a time."""

from __future__ import annotations

import threading
from dataclasses import replace

from eul_serve.errors import BundleFormatError, BusyError, InputError
from eul_serve.format.digest import digest_bytes
from eul_serve.registry.oci.aliases import follow_move
from eul_serve.registry.oci.image import Image
from eul_serve.registry.oci.lock import Lock
from eul_serve.registry.oci.place import Place
from eul_serve.registry.oci.referrers import forget_referrer, list_referrer, subject_of
from eul_serve.registry.oci.repository import Repository
from eul_serve.registry.oci.shape import created, record_image, revision_image, revision_of
from eul_serve.registry.oci.spot import Spot
from eul_serve.registry.oci.tags import parts_of, tag_of
from eul_serve.registry.oci.wire import Wire
from eul_serve.registry.store import MAX_RECORD, Key

ATTEMPTS = 3
"""How often a record is tried whose lock ran out before it was written."""


class Records:
    """The records of one registry; safe for threads."""

    def __init__(self, wire: Wire, delay: float, hold: float) -> None:
        self._wire, self._delay, self._hold = wire, delay, hold
        self._repositories: dict[str | None, tuple[Repository, Lock]] = {}
        self._known_names: set[str] = set()
        self._mutex = threading.Lock()

    @property
    def place(self) -> Place:
        """Where they are."""
        return self._wire.place

    def repository(self, name: str | None) -> Repository:
        """Return the repository of a name, or with None that of the whole registry."""
        return self._places(name)[0]

    def spot(self, key: Key) -> Spot:
        """Return where a record is, or raise InputError for a key that OCI cannot keep."""
        if not key or not all(key):
            raise InputError(f"record {'/'.join(key)!r}: expected a path without empty parts")
        name, parts = (key[1], key[2:]) if key[0] == "names" and len(key) > 2 else (None, key)
        return Spot(name=name, repository=self.repository(name), parts=parts, tag=tag_of(parts))

    def read(self, key: Key) -> bytes | None:
        """Return a record, None where there is none."""
        spot = self.spot(key)
        if not (found := spot.stored()):
            return None
        return spot.repository.small_blob(found[2], MAX_RECORD)

    def create(self, key: Key, data: bytes) -> bool:
        """Make a record unless there is one, and return whether it has these bytes now."""
        if len(data) > MAX_RECORD:
            raise BundleFormatError(
                f"record {'/'.join(key)!r:.200}: expected at most {MAX_RECORD} bytes, found {len(data)}"
            )
        spot = self.spot(key)
        if found := spot.stored():
            return found[2].digest == digest_bytes(data)
        if spot.name is not None:
            self.remember(spot.name)
        # Before the lock: what takes long is done when others need not wait for it.
        spot.repository.prepare()
        spot.repository.put_small_blob(data)
        lock = self._places(spot.name)[1]
        for _ in range(ATTEMPTS):
            with lock.held(unless=lambda: spot.stored() is not None) as hold:
                if found := spot.stored():
                    return found[2].digest == digest_bytes(data)
                image = self._image(spot, data)
                if hold and hold.lasts:
                    self._put(spot, image, data)
                    return True
        raise BusyError(f"{spot.repository} {'/'.join(key)}: the registry is too slow to be written to; try later")

    def remove(self, key: Key) -> None:
        """Remove a record, in turn with those who make one."""
        spot = self.spot(key)
        if not spot.repository.manifest(spot.tag):
            return
        lock = self._places(spot.name)[1]
        with lock.held():
            if found := spot.repository.manifest(spot.tag):
                if spot.parts[0] == "signatures":
                    forget_referrer(spot.repository, Image.parse(found.data, str(spot.repository)), found.digest)
                # By digest: not every registry deletes tags. The manifest is this record's alone.
                spot.repository.delete_manifest(found.digest)

    def age(self, key: Key) -> float | None:
        """Return a record's age; 0 where its manifest does not say when it was made."""
        if not (found := self.spot(key).stored()):
            return None
        return self.age_of(found[1])

    def age_of(self, image: Image) -> float:
        """Return a manifest's age by the registry's clock; 0 where it does not say when it was made."""
        made = created(image)
        return 0.0 if made is None else max(0.0, self._wire.now() - made)

    def below(self, prefix: Key) -> list[str]:
        """Return the names directly below a path, sorted."""
        inside = prefix[0] == "names" and len(prefix) > 1 if prefix else False
        name, below = (prefix[1], prefix[2:]) if inside else (None, prefix)
        keys = [key for tag in self.repository(name).tags() if (key := parts_of(tag)) is not None]
        found = {key[len(below)] for key in keys if len(key) > len(below) and key[: len(below)] == below}
        if prefix == ("names",):
            return sorted(name for name in found if self.below(("names", name)))
        if not prefix and "names" in found and not self.below(("names",)):
            found.remove("names")
        return sorted(found)

    def remembered(self) -> list[str]:
        """Return all names that ever had a record or a blob, sorted."""
        keys = [parts_of(tag) or () for tag in self.repository(None).tags()]
        return sorted(key[1] for key in keys if len(key) == 2 and key[0] == "names")

    def remember(self, name: str) -> None:
        """Write a name into the index of names, which OCI does not have."""
        if name not in self._known_names:
            root, tag = self.repository(None), tag_of(("names", name))
            if not root.manifest(tag):
                root.put_small_blob(b"\n")
                root.put_manifest(tag, record_image(("names", name), b"\n", self._wire.now(), None).to_bytes())
            self._known_names.add(name)

    def _image(self, spot: Spot, data: bytes) -> Image:
        if manifest := revision_of(spot.parts, data):
            return revision_image(spot.repository, spot.parts, manifest, self._wire.now())
        subject = None
        if spot.parts[0] == "signatures" and len(spot.parts) == 3:
            subject = subject_of(spot.repository, tag_of(("revisions", f"{spot.parts[1]}.json")))
        return record_image(spot.parts, data, self._wire.now(), subject)

    def _put(self, spot: Spot, image: Image, data: bytes) -> None:
        answer = spot.repository.put_manifest(spot.tag, image.to_bytes())
        list_referrer(spot.repository, image, answer)
        if spot.parts[0] == "aliases":
            follow_move(spot.repository, spot.parts, data)
        if spot.parts[0] == "revisions":
            self._adopt_signatures(spot)

    def _adopt_signatures(self, spot: Spot) -> None:
        """Make signatures that were there before their revision refer to it."""
        hexes = spot.parts[-1].removesuffix(".json")
        for tag in spot.repository.tags():
            parts = parts_of(tag) or ("",)
            if parts[:2] == ("signatures", hexes) and (stored := spot.repository.manifest(tag)):
                image = Image.parse(stored.data, f"{spot.repository} {tag}")
                signed = replace(image, subject=subject_of(spot.repository, spot.tag))
                list_referrer(spot.repository, signed, spot.repository.put_manifest(tag, signed.to_bytes()))

    def _places(self, name: str | None) -> tuple[Repository, Lock]:
        with self._mutex:
            if name not in self._repositories:
                repository = Repository(self._wire, self.place.repository(name))
                self._repositories[name] = (repository, Lock(repository, self._delay, self._hold))
            return self._repositories[name]
