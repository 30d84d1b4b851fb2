"""What a builder makes, and the folder that it becomes."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError
from eul_serve.format.digest import digest_file
from eul_trainer.output.directory import check_output, unfinished
from eul_trainer.records import Fields, Row, row_key, same_prompts, stream_rows
from eul_trainer.request import read_requests, request_for, write_requests

DIGESTS = "digests.json"
NEEDED = ("forget", "retain", "validation", "test")
"""Files that every folder has."""
FORGETFUL = ("retain", "validation", "test", "twin", "unseen")
"""Files that never hold a row to be forgotten, now or by an earlier request: such a row is taken out, and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The rows and the record of how they were chosen."""

    builder: str
    """Name of the builder."""
    sets: Mapping[str, Iterable[Row]]
    """Rows by the name of their file, without `.jsonl`; those but `forget` may be lazy."""
    settings: Mapping[str, Any]
    """All settings, plain JSON, without paths."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Digests of the files that were read, by their names alone."""
    requests: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Rows of single requests by the name of their file, where there are several; together they are `forget`."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Facts and counts that a reader should know, plain JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the record of the request says beside the rows."""

    id: str | None = None
    """Opaque id; made of the rows' digest if not given."""
    reason: str = "not stated"
    """Why."""
    received: str | None = None
    """Day on which it came in, YYYY-MM-DD; left out if not given, never taken from a clock."""
    earlier: tuple[Path, ...] = ()
    """Files of earlier requests: no row of theirs is kept either."""


def write_dataset(out: Path, dataset: Dataset, receipt: Receipt) -> dict[str, Any]:
    """Write a folder, whole or not at all.

    Args:
        out: The folder; new or empty.
        dataset: Its contents.
        receipt: What the record of the request says.

    Returns:
        The contents of `digests.json`.

    Raises:
        InputError: A file that is needed would be empty, or the folder holds something.
        CapacityError: It cannot be written.
    """
    check_output(out)
    earlier = [request for path in receipt.earlier for request in read_requests(path)]
    taken = {
        row_key(row) for rows in (dataset.sets["forget"], *(request.read() for request in earlier)) for row in rows
    }
    with unfinished(out) as part:
        removed: Counter[str] = Counter()
        files: dict[str, dict[str, Any]] = {}
        for name, rows in {**dataset.sets, **dataset.requests}.items():
            kept = _kept(rows, taken, removed, name) if name in FORGETFUL else rows
            files[f"{name}.jsonl"] = {"rows": _write_rows(part / f"{name}.jsonl", kept)}
        _check(files)
        _write_requests(part, dataset, receipt, files)
        for name, entry in files.items():
            entry["sha256"] = digest_file(part / name)
        alike = same_prompts(stream_rows(part / "retain.jsonl", Fields()), dataset.sets["forget"])
        record = {
            "builder": dataset.builder,
            "settings": dict(dataset.settings),
            "sources": dict(dataset.sources),
            "earlier": [{"id": request.id, "digest": request.digest} for request in earlier],
            "files": files,
            "notes": {**dataset.notes, "removed": dict(removed), "same_prompts": alike},
        }
        text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (part / DIGESTS).write_text(text + "\n", encoding="utf-8")
        os.replace(part, out)
    return record


def _kept(rows: Iterable[Row], taken: set[tuple[str, str]], removed: Counter[str], name: str) -> Iterator[Row]:
    for row in rows:
        if row_key(row) in taken:
            removed[name] += 1
        else:
            yield row


def _write_rows(path: Path, rows: Iterable[Row]) -> int:
    count = 0
    with path.open("wb") as file:
        for row in rows:
            file.write(dump_row(row))
            count += 1
    return count


def dump_row(row: Row) -> bytes:
    """Return a row as one line of JSON.

    Args:
        row: The row.

    Returns:
        The line with its end.

    Raises:
        InputError: A text is not Unicode: it holds half of a surrogate pair.
    """
    record = {"prompt": row.prompt, "completion": row.completion, "group": row.group, **row.extra}
    try:
        return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{row.where}: half of a surrogate pair, which is no character; correct the row") from error


def _check(files: Mapping[str, Mapping[str, Any]]) -> None:
    for name in NEEDED:
        if not files.get(f"{name}.jsonl", {}).get("rows"):
            raise InputError(f"{name}.jsonl: expected at least one row, found none; choose fewer rows for the others")


def _write_requests(part: Path, dataset: Dataset, receipt: Receipt, files: dict[str, dict[str, Any]]) -> None:
    names = {"request.jsonl": {"forget": list(dataset.sets["forget"])}}
    if dataset.requests:
        names["requests.jsonl"] = {name: list(rows) for name, rows in dataset.requests.items()}
    for file, sets in names.items():
        ids = _ids(receipt.id, len(sets), file)
        requests = [
            request_for(rows, part / f"{name}.jsonl", reason=receipt.reason, received=receipt.received, id=id)
            for id, (name, rows) in zip(ids, sets.items(), strict=True)
        ]
        write_requests(part / file, requests)
        files[file] = {"rows": len(requests)}


def _ids(given: str | None, count: int, file: str) -> list[str | None]:
    if given is None or file == "request.jsonl":
        return [given] * count
    return [f"{given}-{number:02}" for number in range(count)]


def seeded(seed: int, *purpose: object) -> int:
    """Return a seed for one purpose, so that two draws of one run do not depend on each other."""
    return int.from_bytes(hashlib.sha256(repr((seed, *purpose)).encode()).digest()[:8], "big")
