"""The requests to fuse, and the rows that they are judged on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format.digest import digest_bytes
from eul_trainer.records import Fields, Row, digest_rows, read_rows, without
from eul_trainer.request import read_requests

HEADLINE = "held_authors"
"""Group of the test file whose change is the headline: authors that the model knows and no layer ever saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What `eul-train data tofu --requests K` wrote, as the benchmark uses it."""

    requests: Mapping[str, Sequence[Row]]
    """Rows to forget, by request."""
    retain: Sequence[Row]
    """Rows that layers are trained and fused against."""
    held: Mapping[str, Sequence[Row]]
    """Rows that are only measured, by group."""

    @property
    def digest(self) -> str:
        """Digest of all rows."""
        parts = [digest_rows(rows) for rows in (*self.requests.values(), self.retain, *self.held.values())]
        return digest_bytes("".join(parts).encode())

    def chosen(self, seed: int, count: int) -> list[str]:
        """Return the first requests in a seed's order: a longer sequence begins with the shorter one."""
        order = sorted(self.requests)
        random.Random(seed).shuffle(order)
        if count > len(order):
            raise InputError(
                f"--requests {count}: the data has {len(order)}; make more: eul-train data tofu --requests"
            )
        return order[:count]


def read_inputs(folder: Path, held_rows: int, also: Path | None = None) -> Inputs:
    """Read a folder of the data builder.

    Args:
        folder: The folder, with requests.jsonl, retain.jsonl and test.jsonl.
        held_rows: Most rows of the headline group, spread over it; of every other group a third of them.
        also: Further rows to retain, such as general ones.

    Returns:
        The inputs.
    """
    requests = {request.id: request.read() for request in read_requests(folder / "requests.jsonl")}
    forgotten = [row for rows in requests.values() for row in rows]
    retain = [*read_rows(folder / "retain.jsonl"), *(read_rows(also) if also else [])]
    groups: dict[str, list[Row]] = {}
    for row in read_rows(folder / "test.jsonl", Fields(group="group")):
        groups.setdefault(row.group, []).append(row)
    held = {
        group: spread_rows(without(rows, [*forgotten, *retain]), held_rows if group == HEADLINE else held_rows // 3)
        for group, rows in groups.items()
    }
    if HEADLINE not in held:
        raise InputError(f"{folder}/test.jsonl: expected rows of the group {HEADLINE!r}, found {', '.join(held)}")
    return Inputs(requests=requests, retain=without(retain, forgotten), held=held)


def spread_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """Return at most a number of rows, evenly spread over all."""
    if len(rows) <= most:
        return list(rows)
    return [rows[place * len(rows) // most] for place in range(most)]
