"""What each alias covered when it was last served, kept over restarts.

Without it a server that was down would take whatever an alias points to when it comes back, and a move that lacks a
request would go unseen. One file in the cache's directory, `served.json`, replaced whole.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eul_serve.errors import CapacityError, InputError
from eul_serve.format import Manifest, Reference, check_digest
from eul_serve.whole import replace_whole

_log = logging.getLogger("eul_serve.swap")
FILE = "served.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """What an alias covers."""

    revision: str
    """The revision, `sha256:<hex>`."""
    request_ids: frozenset[str]
    """The requests that it covers."""


class Memory:
    """Remembers for one registry; aliases of others in the same file are left as they are."""

    def __init__(self, folder: Path, registry: str) -> None:
        """Read what is remembered.

        Args:
            folder: The cache's directory.
            registry: URL of the registry whose aliases these are.

        Raises:
            InputError: The file is there and can not be read, so that nobody knows what was covered.
        """
        self._path, self._registry = folder / FILE, registry
        self._known: dict[str, Covered] = {}
        for key, entry in _read(self._path).get(registry, {}).items():
            self._known[key] = _covered(entry, self._path)

    def covered(self, reference: Reference) -> Covered | None:
        """Return what an alias covered when it was last served; None where it never was."""
        return self._known.get(str(reference))

    def note(self, reference: Reference, manifest: Manifest) -> None:
        """Remember that an alias is served by a revision from now on.

        A disk that is full does not keep a server from moving on: the log says so, and this process remembers.

        Args:
            reference: The alias.
            manifest: The revision's manifest.
        """
        now = Covered(revision=manifest.revision, request_ids=manifest.request_ids)
        if self._known.get(str(reference)) == now:
            return
        self._known[str(reference)] = now
        try:
            self._write()
        except CapacityError as error:
            _log.error("what %s covers is not remembered over a restart: %s", reference, error)

    def _write(self) -> None:
        mine = {
            key: {"revision": one.revision, "requests": sorted(one.request_ids)} for key, one in self._known.items()
        }
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = json.dumps({**_read(self._path), self._registry: mine}, indent=1, sort_keys=True)
            replace_whole(self._path, text + "\n")
        except (OSError, InputError) as error:
            raise CapacityError(f"file {str(self._path)!r}: cannot write: {error}") from error


def _read(path: Path) -> dict[str, Mapping[str, Any]]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path) from error
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise _unreadable(path)
    return found


def _covered(entry: object, path: Path) -> Covered:
    try:
        requests = entry["requests"]  # type: ignore[index]  # whatever JSON holds
        if not isinstance(requests, list) or not all(isinstance(one, str) for one in requests):
            raise _unreadable(path)
        return Covered(revision=check_digest(entry["revision"]), request_ids=frozenset(requests))  # type: ignore[index]
    except (TypeError, KeyError, InputError) as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> InputError:
    return InputError(
        f"file {str(path)!r}: expected what aliases covered when they were last served; restore it, or remove it to "
        "begin without: then a move to a revision that forgets less, made while this server was down, is not noticed"
    )
