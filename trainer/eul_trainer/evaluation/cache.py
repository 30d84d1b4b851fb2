"""Results of single rows on disk, as they come: a killed evaluation goes on, and a second one computes what is new.

One JSON-lines file for each system, kind of result and code. Its name is a digest of all three, so a result of other
code, of another bundle or of other settings is never found. A last line that a kill cut off is taken out. Where several
processes compute, each writes a file of its own and reads those of all.

The files hold answers of the model, also those that are to be forgotten, so only their owner can read them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import eul_serve
import eul_trainer
from eul_serve.errors import CapacityError, InputError
from eul_serve.format.digest import digest_bytes
from eul_trainer.model.devices import SINGLE, Devices

LOCK = "lock"
"""Name of the file that the one who holds a folder locks."""
Due = TypeVar("Due")
OTHERS = ("torch", "transformers", "peft")
"""Packages whose version changes results."""


class RowCache:
    """Results by row of one system and one kind."""

    def __init__(self, path: Path, part: int = 0) -> None:
        self.path = path.with_suffix(f".{part}.jsonl") if part else path
        self._all = path
        _cut_torn(self.path)
        self._found: dict[str, Any] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what all processes have written."""
        for path in self._all.parent.glob(f"{self._all.stem}.*jsonl"):
            self._found |= {line["row"]: line["value"] for line in _whole_lines(path)}

    def __contains__(self, row: str) -> bool:
        return row in self._found

    def __getitem__(self, row: str) -> Any:  # noqa: ANN401  # whatever was added
        return self._found[row]

    def add(self, results: Mapping[str, Any]) -> None:
        """Write the results of a batch down, by the rows' digests.

        Args:
            results: Plain JSON by row.

        Raises:
            CapacityError: The disk is full, or the file cannot be written.
        """
        text = "".join(json.dumps({"row": row, "value": value}) + "\n" for row, value in results.items())
        try:
            with open(self.path, "ab", opener=_private) as file:
                file.write(text.encode())
        except OSError as error:
            raise CapacityError(
                f"--cache {str(self.path.parent)!r}: cannot write: {error.strerror}; free space or name another; what "
                "is there stays"
            ) from error
        self._found |= results


class Cache:
    """A folder of results; open with `open_cache`."""

    def __init__(self, folder: Path, devices: Devices = SINGLE) -> None:
        self.folder, self._devices = folder, devices
        self._open: dict[Path, RowCache] = {}

    def of(self, system: str, kind: str, **settings: Any) -> RowCache:  # noqa: ANN401  # plain JSON
        """Return the results of one system.

        Args:
            system: Whatever tells it from all others: fingerprints and revisions.
            kind: What was computed.
            **settings: What the results depend on besides.

        Returns:
            The results.
        """
        identity = {"system": system, "kind": kind, "settings": settings, "code": code_digest()}
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        path = self.folder / f"{kind}-{name}.jsonl"
        if path not in self._open:  # a file is read once, however often its results are asked for
            self._open[path] = RowCache(path, self._devices.index)
        return self._open[path]

    def share(self, due: Mapping[str, Due]) -> dict[str, Due]:
        """Return this process's share of what is to be computed; every process must ask for the same."""
        self._devices.wait()  # nobody writes before everybody has read, so that all see the same to be due
        return {key: due[key] for key in self._devices.part(list(due))}

    def exchange(self) -> None:
        """Read what the other processes have computed, once all are done."""
        if self._devices.count > 1:
            self._devices.wait()
            for found in self._open.values():
                found.refresh()


@contextmanager
def open_cache(folder: Path, devices: Devices = SINGLE) -> Iterator[Cache]:
    """Hold a folder of results, which one evaluation at a time may do.

    Args:
        folder: The folder; made where it is not there.
        devices: The processes that compute together; the first of them holds the folder.

    Yields:
        The cache.

    Raises:
        InputError: Another process holds it.
        CapacityError: It cannot be made.
    """
    lock = _hold(folder) if devices.main else None
    devices.wait()
    try:
        yield Cache(folder, devices)
    finally:
        if lock is not None:
            os.close(lock)
            _leave_nothing(folder)


def _hold(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CapacityError(f"--cache {str(folder)!r}: cannot make: {error.strerror}; name another") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise InputError(
            f"--cache {str(folder)!r}: another evaluation is using it; wait for it, or name another"
        ) from error
    return lock


def _leave_nothing(folder: Path) -> None:
    """Take away a folder without results: bad input leaves nothing behind."""
    if [path.name for path in folder.iterdir()] == [LOCK]:
        (folder / LOCK).unlink()
        folder.rmdir()


@cache
def code_digest() -> str:
    """Return the digest of both packages' sources, and of the versions of what computes for them."""
    versions = {name: metadata.version(name) for name in OTHERS}
    found = hashlib.sha256(json.dumps(versions, sort_keys=True).encode())
    for package in (eul_trainer, eul_serve):
        root = Path(package.__file__ or "").parent
        for path in sorted(root.rglob("*.py")):
            found.update(f"{package.__name__}/{path.relative_to(root)} {digest_bytes(path.read_bytes())}\n".encode())
    return f"sha256:{found.hexdigest()}"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _cut_torn(path: Path) -> None:
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    whole = path.read_bytes().rpartition(b"\n")[0]
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise InputError(f"cached results {str(path)!r}: damaged: {error}; remove the file, it is made anew") from error
