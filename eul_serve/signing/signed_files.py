"""What a bundle's signature speaks of: its manifest file and every published file, each by its digest.

The digests come from the manifest, so nobody needs the files: neither who signs, after `read_bundle` has checked them,
nor a server, which refuses before it fetches them.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from eul_serve.format import Manifest
from eul_serve.format.bundle import MANIFEST_FILE
from eul_serve.format.config import check_keys, parse_object

if TYPE_CHECKING:
    from model_signing._signing.signing import Payload

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
"""Kind of the statement that model-signing makes of a directory."""
RESOURCE: dict[str, type] = {"algorithm": str, "digest": str, "name": str}


def signed_files(manifest: Manifest) -> dict[str, str]:
    """Return the signed files of a bundle and the hex digits of each digest; no artifact is among them.

    Args:
        manifest: The bundle's manifest.

    Returns:
        Digests by name.
    """
    digests = {name: entry.sha256 for name, entry in manifest.files.items()} | {MANIFEST_FILE: manifest.revision}
    return {name: digest.removeprefix("sha256:") for name, digest in digests.items()}


def make_payload(manifest: Manifest) -> Payload:
    """Return what model-signing signs of a directory that holds a bundle's signed files and nothing else.

    Args:
        manifest: The bundle's manifest.

    Returns:
        A payload of model-signing.
    """
    from model_signing import manifest as listing
    from model_signing._hashing import hashing
    from model_signing._signing import signing

    items = [
        listing.FileManifestItem(path=PurePosixPath(name), digest=hashing.Digest("sha256", bytes.fromhex(digest)))
        for name, digest in signed_files(manifest).items()
    ]
    kind = listing.SerializationType.from_args({"method": "files", "hash_type": "sha256", "allow_symlinks": False})
    return signing.Payload(listing.Manifest("bundle", items, kind))


def check_statement(payload: bytes, manifest: Manifest) -> None:
    """Check that a signed statement lists the files of a bundle, and no others.

    Args:
        payload: The statement; its signature was verified.
        manifest: The bundle's manifest.

    Raises:
        ValueError: It is of another kind, lists a file twice, or lists other files or digests.
        BundleFormatError: It is no JSON in the form of a statement.
    """
    found = parse_object(payload, "statement")
    if (found.get("_type"), found.get("predicateType")) != (STATEMENT, PREDICATE):
        raise ValueError(f"the statement is of another kind: expected {PREDICATE}")
    how = found["predicate"]["serialization"]
    if (how["method"], how["hash_type"]) != ("files", "sha256"):
        raise ValueError("the statement lists other things than the sha256 of files; sign again, file by file")
    signed: dict[str, str] = {}
    for resource in found["predicate"]["resources"]:
        check_keys(resource, RESOURCE, "statement: resource")
        if resource["algorithm"] != "sha256" or resource["name"] in signed:
            raise ValueError(f"file {resource['name']!r:.140}: signed twice, or by another digest than sha256")
        signed[resource["name"]] = resource["digest"]
    _compare(signed, signed_files(manifest))


def _compare(signed: dict[str, str], files: dict[str, str]) -> None:
    if (revision := signed.get(MANIFEST_FILE, "")) != files[MANIFEST_FILE]:
        other = f"sha256:{revision:.64}" if revision else "no manifest"
        raise ValueError(f"it is of another bundle: {other} was signed, and this is sha256:{files[MANIFEST_FILE]}")
    for name in sorted(signed.keys() | files.keys()):
        if signed.get(name) != files.get(name):
            was = "is signed and not of the bundle" if name not in files else "is not signed"
            was = "differs from what was signed" if name in signed and name in files else was
            raise ValueError(f"file {name!r:.140} {was}")
