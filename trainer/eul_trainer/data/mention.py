"""Rows of one's own data that mention a name are to be forgotten; the others are kept.

The file is read once to decide and once for each file that is written, so that memory holds a few bytes for each row
and not the rows. Rows that come near to a mention are for a person to look at: they are neither forgotten nor kept,
unless one says so.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eul_serve.errors import InputError
from eul_serve.format.digest import digest_file
from eul_trainer.data.dataset import Dataset, seeded
from eul_trainer.data.mentions import NEAR, Mention
from eul_trainer.records import Fields, Row, Watch, plain, row_key, stream_rows

SETS = ("forget", "near", "retain", "validation", "test")
FORGET, NEAR_MISS, RETAIN, VALIDATION, TEST = range(len(SETS))
EXACT = "found"
SHOWN = 20
"""Line numbers of near misses that are listed for each mention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MentionSettings:
    """How rows are dealt out."""

    loose: bool = False
    """Whether a name is found without its accents and punctuation too."""
    keep_neighbours: bool = False
    """Whether rows that come near to a mention are kept, in the group `neighbours`, and not left for a person."""
    validation_share: float = 0.1
    """Share of the kept rows that are for validation."""
    test_share: float = 0.1
    """Share of the kept rows that are for the test."""
    seed: int = 0
    """Decides which kept rows are for what; rows that count as one go together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one reading of the file decided."""

    places: array[int]
    """Index into `SETS` by row."""
    keys: array[int]
    """Hash of each row, which orders the kept rows by the seed."""
    matched: dict[str, int]
    """Rows that mention a name, by the name."""
    near: dict[str, dict[str, list[int]]]
    """Lines that come near to a name, by the name and the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The rows of one set, read from the file each time they are asked for."""

    path: Path
    """The file."""
    fields: Fields
    """The fields to read."""
    places: array[int]
    """Index into `SETS` by row."""
    wanted: tuple[int, ...]
    """The places that belong to the set."""

    def __iter__(self) -> Iterator[Row]:
        """Read the rows."""
        try:
            for place, row in zip(self.places, stream_rows(self.path, self.fields), strict=True):
                if place in self.wanted:
                    yield replace(row, group="neighbours") if place == NEAR_MISS else row
        except ValueError as error:
            raise InputError(f"{str(self.path)!r}: changed while it was read; start again") from error


def build_mention(
    path: Path, fields: Fields, mentions: Sequence[Mention], settings: MentionSettings, watch: Watch | None = None
) -> Dataset:
    """Choose the rows that mention a name.

    Args:
        path: JSON lines.
        fields: The fields to read.
        mentions: The names.
        settings: The settings.
        watch: Told about the bytes read.

    Returns:
        The rows; `near` are those that come near to a mention, for a person to decide.

    Raises:
        InputError: The file or a share is not acceptable, or no row mentions a name.
    """
    _check(settings)
    found = _search(path, fields, mentions, settings, watch)
    _deal(found, settings)
    kept = (RETAIN, NEAR_MISS) if settings.keep_neighbours else (RETAIN,)
    wanted = {"forget": (FORGET,), "retain": kept, "validation": (VALIDATION,), "test": (TEST,)}
    if NEAR_MISS in found.places and not settings.keep_neighbours:
        wanted["near"] = (NEAR_MISS,)
    parts: dict[str, Any] = {
        name: Part(path=path, fields=fields, places=found.places, wanted=places) for name, places in wanted.items()
    }
    return Dataset(
        builder="mention",
        sets={**parts, "forget": list(parts["forget"])},
        settings={**asdict(settings), "mentions": [mention.name for mention in mentions], "fields": asdict(fields)},
        sources={path.name: digest_file(path.resolve())},
        notes={"rows": len(found.places), "matched": found.matched, "near_misses": _listed(found.near)},
    )


def _check(settings: MentionSettings) -> None:
    shares = (settings.validation_share, settings.test_share)
    if min(shares) <= 0 or sum(shares) >= 1:
        raise InputError(f"shares {shares[0]} and {shares[1]}: expected each above 0 and together less than 1")


def _search(
    path: Path, fields: Fields, mentions: Sequence[Mention], settings: MentionSettings, watch: Watch | None
) -> Found:
    """Read the file once, and decide for each row whether it is to be forgotten."""
    salt = seeded(settings.seed, "mention").to_bytes(8, "big")
    found = Found(
        places=array("b"),
        keys=array("Q"),
        matched={mention.name: 0 for mention in mentions},
        near={mention.name: {} for mention in mentions},
    )
    for row in stream_rows(path, fields, watch):
        text = plain(f"{row.prompt}\n{row.completion}")
        ways = {mention.name: way for mention in mentions if (way := _way(mention, text, settings.loose))}
        exact = [name for name, way in ways.items() if way == EXACT]
        found.places.append(FORGET if exact else NEAR_MISS if ways else RETAIN)
        key = ascii(row_key(row)).encode()
        found.keys.append(int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=salt).digest(), "big"))
        found.matched.update({name: found.matched[name] + 1 for name in exact})
        for name, way in ways.items() if not exact else ():
            found.near[name].setdefault(way, []).append(int(row.where.rpartition(":")[2]))
    return found


def _way(mention: Mention, text: str, loose: bool) -> str | None:
    if mention.found(text):
        return EXACT
    way = mention.near(text)
    return EXACT if loose and way in NEAR[:2] else way


def _deal(found: Found, settings: MentionSettings) -> None:
    """Give the kept rows their sets: the first ones by their hash to validation, the next to the test."""
    places, keys = np.frombuffer(found.places, dtype=np.int8), np.frombuffer(found.keys, dtype=np.uint64)
    if FORGET not in found.places:
        near = sum(place == NEAR_MISS for place in found.places)
        raise InputError(
            f"mentions: found in none of {len(places)} rows, {near} rows come near; check the spelling or add --loose"
        )
    order = np.unique(keys[places == RETAIN])
    counts = [max(1, round(share * len(order))) for share in (settings.validation_share, settings.test_share)]
    if sum(counts) >= len(order):
        raise InputError(f"kept rows: expected at least 3 different ones, found {len(order)}; add rows to be kept")
    for place, some in ((VALIDATION, order[: counts[0]]), (TEST, order[counts[0] : sum(counts)])):
        places[(places == RETAIN) & (keys >= some[0]) & (keys <= some[-1])] = place


def _listed(near: Mapping[str, Mapping[str, list[int]]]) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        name: {way: {"rows": len(lines), "lines": lines[:SHOWN]} for way, lines in ways.items()}
        for name, ways in near.items()
    }
