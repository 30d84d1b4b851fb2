"""The rows of TOFU's evaluation: forgotten and retained ones, real authors and world facts, with other answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eul_serve.errors import InputError
from eul_trainer.data.tofu_files import read_questions, read_wordings, worded
from eul_trainer.evaluation.evaluate import EvalSet
from eul_trainer.evaluation.ratios import PARAPHRASED, PERTURBED
from eul_trainer.metrics.result import Kind
from eul_trainer.records import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the files that TOFU's evaluation reads."""

    file: str
    """Its name."""
    kind: Kind
    """Whether its rows are to be forgotten."""


PARTS = {
    "forget": Part(file="forget10_perturbed.json", kind="forget"),
    "retain": Part(file="retain_perturbed.json", kind="retain"),
    "real_authors": Part(file="real_authors_perturbed.json", kind="retain"),
    "world_facts": Part(file="world_facts_perturbed.json", kind="retain"),
}
Chunk = Sequence[EvalSet]
"""Rows that are evaluated in one go, each part a set."""


def chunks(folder: Path, *, count: int, size: int, seed: int) -> list[Chunk]:
    """Draw rows of TOFU's evaluation, each part by its share of all rows.

    Args:
        folder: The folder with TOFU's files.
        count: Number of chunks; no row is in two of them.
        size: Rows of a chunk.
        seed: Decides which rows are drawn.

    Returns:
        The chunks, each with the same number of rows of each part.

    Raises:
        InputError: There are fewer rows.
    """
    wordings, _ = read_wordings(folder)
    found = {name: worded(read_questions(folder / part.file).rows, name, wordings) for name, part in PARTS.items()}
    total = sum(map(len, found.values()))
    if count * size > total:
        raise InputError(f"--chunks {count}, --rows {size}: TOFU's evaluation has {total} rows; lower one of them")
    shares = {name: max(1, round(size * len(rows) / total)) for name, rows in found.items()}
    drawn = {
        name: [_with_right_answer(row) for row in random.Random(f"{seed} {name}").sample(rows, count * shares[name])]
        for name, rows in found.items()
    }
    return [[_part(name, rows, number, shares[name]) for name, rows in drawn.items()] for number in range(count)]


def _part(name: str, rows: Sequence[Row], number: int, share: int) -> EvalSet:
    return EvalSet(name=name, kind=PARTS[name].kind, rows=rows[number * share : (number + 1) * share])


def _with_right_answer(row: Row) -> Row:
    """Return a row that has a truth ratio: of real authors and world facts the answer stands for its paraphrase."""
    if PERTURBED not in row.extra:
        raise InputError(f"{row.where}: expected {PERTURBED!r}; get TOFU's *_perturbed.json files anew")
    return replace(row, extra={PARAPHRASED: row.completion, **row.extra})
