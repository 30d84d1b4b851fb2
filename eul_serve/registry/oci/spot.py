"""Where in an OCI registry one record is, and what is there."""

from __future__ import annotations

from dataclasses import dataclass

from eul_serve.errors import BundleFormatError
from eul_serve.registry.oci.descriptor import Descriptor
from eul_serve.registry.oci.image import Image
from eul_serve.registry.oci.repository import Repository, Stored
from eul_serve.registry.oci.shape import record_of
from eul_serve.registry.store import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a record is."""

    name: str | None
    """The bundle that it is about; None for a record of the whole registry."""
    repository: Repository
    """Its repository."""
    parts: Key
    """Its key below that."""
    tag: str
    """Its tag."""

    def stored(self) -> tuple[Stored, Image, Descriptor] | None:
        """Return the manifest that is there, its content, and the blob with the record's bytes."""
        if not (stored := self.repository.manifest(self.tag)):
            return None
        where = f"{self.repository} {'/'.join(self.parts)}"
        image = Image.parse(stored.data, where)
        if not (blob := record_of(image)):
            raise BundleFormatError(
                f"{where}: expected a record of one layer under the tag {self.tag}; delete that tag"
            )
        return stored, image, blob
