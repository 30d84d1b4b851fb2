"""The rows of one cell of a table, by task, split and seed; made by the product's own data builders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eul_trainer.data.dataset import Dataset
from eul_trainer.records import Row, digest_rows, without
from tables.scale import Scale

TRAIN_ROWS = {"imdb": 20000, "samsum": 14732}
"""Rows of the whole training sets, which shares are of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a model is taught, what it must forget, and what it is measured on."""

    task: str
    """tofu, imdb or samsum."""
    forget: Sequence[Row]
    """Taught, and to be forgotten."""
    retain: Sequence[Row]
    """Taught, to be kept, and seen by the methods."""
    held: Sequence[Row]
    """To be kept, and seen by no method: for TOFU taught authors, else the test set."""
    unseen: Sequence[Row]
    """Of the same kind as those to forget, never taught: their loss is the target of the stop."""
    teach: Sequence[Row]
    """All that the original model is taught."""
    twin: Sequence[Row]
    """All that the retrained model is taught."""

    @property
    def digest(self) -> str:
        """Digest of what is taught and forgotten."""
        return digest_rows([*self.teach, *self.forget, *self.held])


def make_case(task: str, source: Path, split: Mapping[str, Any], scale: Scale, seed: int) -> Case:
    """Choose the rows of one cell.

    Args:
        task: tofu, imdb or samsum.
        source: The folder with the task's data.
        split: What is forgotten, from the scale.
        scale: The scale.
        seed: Decides which authors, films or speakers are forgotten.

    Returns:
        The rows.
    """
    if task == "tofu":
        return _tofu(source, split, seed)
    return _shared_out(task, source, split, scale, seed)


def _tofu(source: Path, split: Mapping[str, Any], seed: int) -> Case:
    from eul_trainer.data.tofu import TofuSettings, build_tofu

    sets = _lists(build_tofu(source, TofuSettings(validation_authors=0, seed=seed, **split)))
    held = [row for row in sets["test"] if row.group == "held_authors"]
    # Where all authors are taught, the target is the loss of facts about other, real authors.
    unseen = sets.get("unseen") or [row for row in sets["test"] if row.group == "real_authors"]
    return Case(
        task="tofu",
        forget=sets["forget"],
        retain=sets["retain"],
        held=held,
        unseen=unseen,
        teach=sets["teach"],
        twin=sets["twin"],
    )


def _shared_out(task: str, source: Path, split: Mapping[str, Any], scale: Scale, seed: int) -> Case:
    """Cut a share of a smaller training set: the builders' share is of the whole one."""
    train, test = scale.extra["train"], scale.extra["test"]
    forgotten = max(1, round(split["share"] * train))
    share = forgotten / TRAIN_ROWS[task]
    most = None if train == TRAIN_ROWS[task] else max(train - forgotten, test)
    sets = _lists(_build(task, source, share, most, scale, seed))
    retain = sets["retain"][: train - len(sets["forget"])] if most else sets["retain"]
    return Case(
        task=task,
        forget=sets["forget"],
        retain=retain,
        held=sets["test"][:test],
        unseen=without(sets["validation"], sets["test"])[:test],
        teach=[*sets["forget"], *retain],
        twin=retain,
    )


def _build(task: str, source: Path, share: float, most: int | None, scale: Scale, seed: int) -> Dataset:
    kept = scale.words or None
    if task == "imdb":
        from eul_trainer.data.imdb import ImdbSettings, build_imdb

        return build_imdb(source, ImdbSettings(share=share, max_words=kept, limit=most, seed=seed))
    from eul_trainer.data.samsum import SamsumSettings, build_samsum

    settings = SamsumSettings(share=share, max_words=kept, limit=most, seed=seed)
    path = source / "samsum.zip"
    left_out = build_samsum(path, settings).notes["left_out"]["train"]  # long conversations, and shares are of the rest
    of_rest = min(0.9, share * TRAIN_ROWS[task] / (TRAIN_ROWS[task] - left_out))
    return build_samsum(path, replace(settings, share=of_rest))


def _lists(dataset: Dataset) -> dict[str, list[Row]]:
    return {name: list(rows) for name, rows in dataset.sets.items()}
