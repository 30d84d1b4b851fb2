"""The files of TOFU: questions and answers, and the perturbed files with other wordings of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eul_serve.errors import InputError
from eul_trainer.records import Fields, Row, read_rows, row_key, stream_objects

AUTHOR_ROWS = 20
"""Rows of one author, which follow each other in `full.json`."""
PERTURBED = {
    "paraphrased_question": "paraphrased_question",
    "paraphrased_answer": "paraphrased_answer",
    "perturbed_answer": "perturbed_answers",
}
"""Fields of the perturbed files, and the keys under which rows have them here."""

Wordings = Mapping[tuple[str, str], dict[str, Any]]
"""Other wordings by the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The rows of a file."""

    path: Path
    """The file."""
    rows: Sequence[Row]
    """The rows in the file's order."""

    @property
    def authors(self) -> int:
        """Number of authors, where the file has all rows of each."""
        return len(self.rows) // AUTHOR_ROWS

    def of(self, author: int) -> Sequence[Row]:
        """Return an author's rows."""
        return self.rows[author * AUTHOR_ROWS : (author + 1) * AUTHOR_ROWS]


def read_questions(path: Path) -> Questions:
    """Read a file of questions and answers."""
    return Questions(path=path, rows=read_rows(path, Fields(prompt="question", completion="answer")))


def read_full(folder: Path) -> Questions:
    """Read the file with all authors.

    Args:
        folder: The folder with TOFU's files.

    Returns:
        The rows.

    Raises:
        InputError: The file is missing, or has no whole authors.
    """
    full = read_questions(folder / "full.json")
    if len(full.rows) % AUTHOR_ROWS:
        raise InputError(
            f"{str(full.path)!r}: expected {AUTHOR_ROWS} rows for each author, found {len(full.rows)} rows; get it anew"
        )
    return full


def read_wordings(folder: Path) -> tuple[dict[tuple[str, str], dict[str, Any]], list[Path]]:
    """Read the other wordings of all perturbed files that are there.

    Args:
        folder: The folder with TOFU's files.

    Returns:
        The wordings by the row that they belong to, and the files.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    paths = sorted(folder.glob("*_perturbed.json"))
    for path in paths:
        for record, _ in stream_objects(path):
            row = Row(prompt=str(record.get("question")), completion=str(record.get("answer")))
            found[row_key(row)] = {key: record[name] for name, key in PERTURBED.items() if name in record}
    return found, paths


def worded(rows: Sequence[Row], group: str, wordings: Wordings, **extra: int) -> list[Row]:
    """Return rows in a group, with their other wordings and further keys beside them."""
    return [replace(row, group=group, extra={**extra, **wordings.get(row_key(row), {})}) for row in rows]


def paraphrased(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose question has another wording, asked in it; the answer stays."""
    return [
        replace(row, prompt=row.extra["paraphrased_question"], extra={**row.extra, "question": row.prompt})
        for row in rows
        if "paraphrased_question" in row.extra
    ]
