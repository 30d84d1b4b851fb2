"""What is scored beside a row: other answers to its question, its question behind unseen rows, its words masked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from eul_serve.errors import InputError
from eul_trainer.evaluation.ratios import FIELDS as RATIO_FIELDS
from eul_trainer.evaluation.ratios import variants
from eul_trainer.evaluation.view import View
from eul_trainer.forward.encoding import context_limit, encode
from eul_trainer.forward.masked_words import masked_rows
from eul_trainer.metrics.result import Kind
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import Row

LABELS = "labels"
"""Field of a row of a classification: all label texts, of which the completion is one."""
FIELDS = (*RATIO_FIELDS, LABELS)
"""Fields that rows may have besides question, answer and group."""
PREFIX_ROWS = 5
"""Most unseen rows that stand before a row for ReCaLL, and at most half of them, so that others are left to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Companions:
    """Rows beside one row."""

    variants: Sequence[Row] = ()
    """Its right answer in other words, then each wrong one; empty where it has not both."""
    labels: Sequence[Row] = ()
    """Each label as the answer; empty where it has none."""
    after_unseen: Sequence[Row] = ()
    """Its question behind rows that the model never saw: one row, or none."""
    masked: Sequence[Row] = ()
    """Its question with words masked: one row, or none."""

    @property
    def rows(self) -> list[Row]:
        """All of them."""
        return [*self.variants, *self.labels, *self.after_unseen, *self.masked]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What one system makes of them."""

    variants: Sequence[View]
    labels: Sequence[View]
    after_unseen: Sequence[View]
    masked: Sequence[View]

    @classmethod
    def take(cls, rows: Companions, views: Iterator[View]) -> Beside:
        """Take the views of a row's companions, in the order of `Companions.rows`."""
        parts = (rows.variants, rows.labels, rows.after_unseen, rows.masked)
        variants, labels, after_unseen, masked = ([next(views) for _ in part] for part in parts)
        return cls(variants=variants, labels=labels, after_unseen=after_unseen, masked=masked)


def labelled(row: Row) -> list[Row]:
    """Return the row with each of its labels as the answer; nothing where it has none.

    Args:
        row: The row.

    Returns:
        Rows with the same prompt.

    Raises:
        InputError: The labels are no list of texts, or the answer is none of them.
    """
    if LABELS not in row.extra:
        return []
    labels = row.extra[LABELS]
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise InputError(f"{row.where}: expected a list of texts in {LABELS!r}")
    if row.completion not in labels:
        raise InputError(f"{row.where}: {LABELS!r}: expected the answer among {', '.join(labels)}; it is not")
    return [Row(prompt=row.prompt, completion=label, where=row.where) for label in labels]


class CompanionPlan:
    """Which companions all rows have. Each model that reads them is given the same ones.

    Args:
        kinds: The kind of each row's set.
        rows: The rows.
        masked_words: Whether their questions are asked with words masked.

    Raises:
        InputError: A field of a row is malformed.
    """

    def __init__(self, kinds: Sequence[Kind], rows: Sequence[Row], masked_words: bool) -> None:
        self._rows, self._masked = rows, masked_words
        self._fixed = [Companions(variants=variants(row), labels=labelled(row)) for row in rows]
        places: dict[Kind, list[int]] = {"forget": [], "retain": [], "unseen": []}
        for place, kind in enumerate(kinds):
            places[kind].append(place)
        self._prefix = prefix_rows([rows[place] for place in places["unseen"]])
        self._behind = [*places["forget"], *places["unseen"][len(self._prefix) :]] if self._prefix else []
        self._complete: list[Companions] = []

    @property
    def count(self) -> int:
        """How many companions there are, at most."""
        return sum(len(found.rows) for found in self._fixed) + len(self._behind) + self._masked * len(self._rows)

    def complete(self, model: LoadedModel) -> list[Companions]:
        """Return each row's companions, made for the first model that asks.

        Args:
            model: A model that reads them.

        Returns:
            The companions, in the order of the rows.

        Raises:
            InputError: Words are to be masked, and the model cannot fill them in.
        """
        if not self._complete:
            prefix = fitted_prefix(model, self._prefix, [self._rows[place] for place in self._behind])
            compared = set(self._behind) if prefix else set()
            hidden = masked_rows(model.tokenizer, self._rows, 0) if self._masked else []
            self._complete = [
                replace(
                    found,
                    after_unseen=[behind(prefix, row)] if place in compared else (),
                    masked=hidden[place : place + 1],
                )
                for place, (found, row) in enumerate(zip(self._fixed, self._rows, strict=True))
            ]
        return self._complete


def prefix_rows(unseen: Sequence[Row]) -> Sequence[Row]:
    """Return the unseen rows that stand before others."""
    return unseen[: min(PREFIX_ROWS, len(unseen) // 2)]


def fitted_prefix(model: LoadedModel, prefix: Sequence[Row], rows: Sequence[Row]) -> Sequence[Row]:
    """Return as many rows of a prefix as leave room for every row behind them.

    Args:
        model: The model that reads them.
        prefix: Rows to stand before others.
        rows: The rows that they stand before.

    Returns:
        The first rows of the prefix; none where not even one leaves room.
    """
    limit = context_limit(model.network)
    if not rows:
        return prefix
    longest = max(rows, key=lambda row: len(row.prompt) + len(row.completion))
    for count in range(len(prefix), 0, -1):
        try:
            encode(model.tokenizer, [behind(prefix[:count], longest)], limit=limit - limit // 8)
        except InputError:
            continue
        return prefix[:count]
    return ()


def behind(prefix: Sequence[Row], row: Row) -> Row:
    """Return a row whose question stands behind other rows' questions and answers."""
    shots = "".join(f"{shot.prompt}\n{shot.completion}\n\n" for shot in prefix)
    return Row(prompt=shots + row.prompt, completion=row.completion, where=row.where)
