"""What a SISA training is: its rows with their shards and slices, which no deletion changes for the rows that stay."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eul_serve.errors import CapacityError, InputError
from eul_serve.format.digest import digest_bytes
from eul_trainer.baselines.sisa.settings import SisaSettings
from eul_trainer.fit.schedule import permutation
from eul_trainer.records import Row, digest_rows, row_key, without

STATE_FILE = "sisa.json"
_PLACES = 7  # name of the random stream


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRow:
    """A row and where it is trained."""

    row: Row
    """The row."""
    shard: int
    """Its shard, from 0."""
    slice: int
    """Its slice of the shard, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SisaState:
    """A SISA training, apart from its weights."""

    model: str
    """Path or name of the model before teaching."""
    base: str
    """Its fingerprint."""
    settings: SisaSettings
    """The settings."""
    rows: Sequence[PlacedRow]
    """The rows that are left, in the order of the first training."""

    def part(self, shard: int, last: int) -> list[Row]:
        """Return a shard's rows up to a slice, that one included."""
        return [placed.row for placed in self.rows if placed.shard == shard and placed.slice <= last]

    def key(self, shard: int, last: int) -> str:
        """Return the name of the checkpoint after a slice: a digest of all that decides its weights.

        A deletion changes the names from its row's slice on and no others, so that what is there by name is right, and
        what is missing is what must be trained: after a deletion as after a kill.
        """
        slices = [
            digest_rows([placed.row for placed in self.rows if (placed.shard, placed.slice) == (shard, number)])
            for number in range(last + 1)
        ]
        facts = [self.base, self.settings.stage.to_json(), shard, slices]
        return digest_bytes(json.dumps(facts, sort_keys=True).encode()).removeprefix("sha256:")[:32]

    def delete(self, rows: Sequence[Row]) -> SisaState:
        """Return the state without some rows; the others keep their shard and slice.

        Args:
            rows: Rows to delete.

        Returns:
            The state; its missing checkpoints are still to be trained.

        Raises:
            InputError: A row is not in the state, or none would be left.
        """
        held = [placed.row for placed in self.rows]
        if unknown := without(rows, held):
            raise InputError(
                f"{unknown[0].where or 'rows'}: {len(unknown)} of {len(rows)} rows are not in the SISA training, "
                "this one first; leave them out"
            )
        gone = {row_key(row) for row in rows}
        left = [placed for placed in self.rows if row_key(placed.row) not in gone]
        if not left:
            raise InputError("rows: expected at least one row to stay, found none; remove the whole directory instead")
        return replace(self, rows=left)


def place_rows(rows: Sequence[Row], settings: SisaSettings) -> list[PlacedRow]:
    """Give each row its shard and slice by the seed; parts of a kind differ by at most one row.

    Args:
        rows: The rows.
        settings: Number of shards and slices, and the seed.

    Returns:
        The rows with their places, in their order.

    Raises:
        InputError: There are fewer rows than slices in all.
    """
    count, shards, slices = len(rows), settings.shards, settings.slices
    if count < shards * slices:
        raise InputError(
            f"--shards {shards} and --slices {slices}: expected at least {shards * slices} rows, found {count}; "
            "lower one of them"
        )
    places: dict[int, tuple[int, int]] = {}
    for place, index in enumerate(permutation(settings.teach.seed, _PLACES, count, 0)):
        shard, order = place % shards, place // shards
        size = (count - shard + shards - 1) // shards
        places[index] = (shard, order * slices // size)
    return [PlacedRow(row=row, shard=places[index][0], slice=places[index][1]) for index, row in enumerate(rows)]


def save_state(folder: Path, state: SisaState) -> None:
    """Write the state's file whole or not at all.

    Args:
        folder: Directory of the training.
        state: The state.

    Raises:
        CapacityError: The disk is full, or the file cannot be written.
    """
    rows = [
        {"prompt": placed.row.prompt, "completion": placed.row.completion, "shard": placed.shard, "slice": placed.slice}
        for placed in state.rows
    ]
    facts = {"model": state.model, "base": state.base, "settings": state.settings.to_json(), "rows": rows}
    part = folder / f"{STATE_FILE}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        os.replace(part, folder / STATE_FILE)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise CapacityError(f"{str(folder)!r}: cannot write: {error.strerror}; free space or name another") from error


def load_state(folder: Path) -> SisaState:
    """Read the state's file.

    Args:
        folder: Directory of the training.

    Returns:
        The state.

    Raises:
        InputError: There is none, or it is damaged.
    """
    path = folder / STATE_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            PlacedRow(
                row=Row(prompt=row["prompt"], completion=row["completion"]), shard=row["shard"], slice=row["slice"]
            )
            for row in found["rows"]
        ]
        settings = SisaSettings.from_json(found["settings"])
        return SisaState(model=str(found["model"]), base=str(found["base"]), settings=settings, rows=rows)
    except OSError as error:
        raise InputError(
            f"{str(path)!r}: cannot read: {error.strerror}; make one with: eul-train baseline sisa train"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r}: damaged; train again into a new directory") from error
