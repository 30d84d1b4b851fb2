"""The tags that people pull by: `host/path/name:stable` follows the moves of the alias `stable`.

The truth is the record of each move; the tag trails it, and where it could not be moved the next move repairs it.
"""

from __future__ import annotations

import json
from contextlib import suppress

from eul_serve.errors import EulError
from eul_serve.format import check_digest, check_name
from eul_serve.registry.oci.repository import Repository
from eul_serve.registry.oci.tags import tag_of
from eul_serve.registry.store import Key


def follow_move(repository: Repository, parts: Key, data: bytes) -> None:
    """Tag the revision that a move leads to; the caller holds the lock, so that moves are followed in their order.

    Args:
        repository: Repository of the bundle.
        parts: Key of the move below it.
        data: The move's record; where it is in a form that we do not know, nothing happens.
    """
    with suppress(EulError):
        if (revision := _revision(data)) and (stored := repository.manifest(tag_of(("revisions", f"{revision}.json")))):
            repository.put_manifest(check_name(parts[1], "alias"), stored.data, stored.media_type)


def _revision(data: bytes) -> str | None:
    """Return the hex digits of the revision that a move leads to."""
    try:
        return check_digest(json.loads(data)["facts"]["revision"]).removeprefix("sha256:")
    except (ValueError, LookupError, TypeError, RecursionError, EulError):
        return None
