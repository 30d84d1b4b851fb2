"""Signatures as OCI sees them: manifests that name a revision's manifest as their subject.

A registry with the referrers API finds them by itself, and says so with the header `OCI-Subject` when one is put. For
the others a client keeps their list itself, as the distribution specification asks: an index under the tag
`sha256-<hex of the subject>`. Tools such as `oras discover` read either.
"""

from __future__ import annotations

from dataclasses import replace

from eul_serve.registry.oci.answer import Answer
from eul_serve.registry.oci.descriptor import Descriptor
from eul_serve.registry.oci.image import IMAGE_TYPE, INDEX_TYPE, Image, index_bytes, parse_index
from eul_serve.registry.oci.repository import Repository


def subject_of(repository: Repository, tag: str) -> Descriptor | None:
    """Return the descriptor of the manifest under a tag, to be named as a subject; None where there is none."""
    if not (stored := repository.manifest(tag)):
        return None
    return Descriptor(media_type=IMAGE_TYPE, digest=stored.digest, size=len(stored.data))


def list_referrer(repository: Repository, image: Image, answer: Answer) -> None:
    """List a manifest under its subject where the registry does not; the caller holds the repository's lock.

    Args:
        repository: Where both are.
        image: The manifest, which was just put.
        answer: What the registry answered to that.
    """
    if image.subject is None or answer.headers.get("OCI-Subject"):
        return
    entry = replace(
        Descriptor.of(image.to_bytes(), IMAGE_TYPE),
        artifact_type=image.artifact_type,
        annotations=image.annotations,
    )
    listed = _listed(repository, image.subject.digest)
    if entry.digest not in {other.digest for other in listed}:
        repository.put_manifest(_tag(image.subject.digest), index_bytes([*listed, entry]), INDEX_TYPE)


def forget_referrer(repository: Repository, image: Image, digest: str) -> None:
    """Take a manifest off the list of its subject; the caller holds the repository's lock.

    Args:
        repository: Where both are.
        image: The manifest that goes.
        digest: Its digest.
    """
    if image.subject is None:
        return
    listed = _listed(repository, image.subject.digest)
    left = [entry for entry in listed if entry.digest != digest]
    if left != listed:
        repository.put_manifest(_tag(image.subject.digest), index_bytes(left), INDEX_TYPE)


def _listed(repository: Repository, subject: str) -> list[Descriptor]:
    stored = repository.manifest(_tag(subject))
    return parse_index(stored.data, f"{repository} {_tag(subject)}") if stored else []


def _tag(subject: str) -> str:
    return subject.replace(":", "-")
