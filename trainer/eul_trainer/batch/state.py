"""The output directory of a batch: who works in it, what it was planned with, and what is done."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eul_serve.errors import CapacityError, EulError, InputError
from eul_serve.format import Bundle, read_bundle
from eul_trainer.batch.task import layer_path
from eul_trainer.output.directory import check_output

PLAN_FILE = "plan.json"
"""What the batch was planned with: a repeated call must agree with it."""
VERSION = 1


@contextmanager
def opened(folder: Path) -> Iterator[None]:
    """Hold the output directory of a batch, so that two calls never work in it at once.

    Args:
        folder: The directory: new, empty, or one of an earlier call.

    Yields:
        Nothing; the directory and its parts exist.

    Raises:
        InputError: It holds something else, or another call works in it.
        CapacityError: It cannot be written.
    """
    if not (folder / PLAN_FILE).is_file() and not _only_ours(folder):
        check_output(folder)
    try:
        for part in ("layers", "logs"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CapacityError(f"output {str(folder)!r}: cannot write: {error.strerror}; name another place") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InputError(f"output {str(folder)!r}: another batch works in it; wait for it or name another") from error
    finally:
        os.close(lock)


def _only_ours(folder: Path) -> bool:
    """Return whether a directory holds what `opened` makes and nothing else: a call that was killed at once."""
    if not folder.is_dir():
        return False
    found = {path.name for path in folder.iterdir()}
    return bool(found) and found <= {"layers", "logs", ".lock"} and not any((folder / "layers").glob("*"))


def settle_plan(folder: Path, facts: Mapping[str, Any], requests: Mapping[str, Mapping[str, str]]) -> None:
    """Compare a plan with that of an earlier call in the same directory, and write it.

    Requests may be added. Whatever else changes would make layers of one batch differ in what made them.

    Args:
        folder: The output directory.
        facts: Settings, base model and retained data, plain JSON.
        requests: By id, the digests of the rows to forget and to keep.

    Raises:
        InputError: Something changed; names what, with both values.
        CapacityError: The plan cannot be written.
    """
    path = folder / PLAN_FILE
    if path.is_file():
        old = _read(path)
        _compare(folder, _flat(old["facts"]), _flat(facts))
        _compare_requests(folder, old["requests"], requests)
    text = json.dumps({"version": VERSION, "facts": facts, "requests": requests}, indent=1, sort_keys=True)
    write_whole(path, text + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != VERSION or not isinstance(found["facts"], dict):
            raise KeyError("version")
        return {"facts": found["facts"], "requests": dict(found["requests"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"plan {str(path)!r}: cannot be read ({error!r:.100}); name another --out") from error


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in facts.items():
        found |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]  # what it becomes in the file


def _compare(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    if changed:
        words = ", ".join(f"{name} was {old.get(name)!r:.80}, now {new.get(name)!r:.80}" for name in changed)
        raise InputError(
            f"output {str(folder)!r}: its batch was planned with other settings: {words}; "
            "use those again, or name another --out"
        )


def _compare_requests(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for request, digests in old.items():
        if request not in new:
            raise InputError(
                f"output {str(folder)!r}: request {request!r} was in this batch and is not in the file any more; "
                "bring it back, or name another --out"
            )
        for what, digest in digests.items():
            if new[request].get(what) != digest:
                raise InputError(
                    f"output {str(folder)!r}: request {request!r}: its {what} rows changed since it was planned; "
                    "name another --out"
                )


def done_layer(folder: Path, request: str, base: str) -> Bundle | None:
    """Return the finished layer of a request, or None where it is still to be made.

    Args:
        folder: The output directory.
        request: The request's id.
        base: Fingerprint of the base model.

    Returns:
        The layer, read with every check.

    Raises:
        InputError: Something else lies in its place.
    """
    path = layer_path(folder, request)
    if not path.exists():
        return None
    try:
        bundle = read_bundle(path, base)
    except EulError as error:
        raise InputError(
            f"layer {str(path)!r}: damaged: {error}; remove it, and the same line makes it anew"
        ) from error
    if [found.id for found in bundle.manifest.requests] != [request]:
        raise InputError(f"layer {str(path)!r}: not that of request {request!r}; remove it")
    return bundle


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Args:
        path: The file.
        text: Its contents.

    Raises:
        CapacityError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CapacityError(f"file {str(path)!r}: cannot write: {error.strerror}; free space") from error
