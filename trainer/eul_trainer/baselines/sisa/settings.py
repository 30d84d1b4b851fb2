"""The settings of SISA training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from eul_trainer.settings import check
from eul_trainer.teaching.settings import TeachSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SisaSettings:
    """Everything that decides the shards' weights, apart from the rows and the model."""

    shards: int = 4
    """Models, each taught a part of the rows; a deletion touches those that hold a deleted row."""
    slices: int = 4
    """Parts of a shard, taught one after the other, with a checkpoint after each."""
    teach: TeachSettings = field(default_factory=TeachSettings)
    """How a shard is taught; its epochs are those that one training on the whole shard would take."""

    def __post_init__(self) -> None:
        check(1 <= self.shards <= 256, "shards", self.shards, "1 to 256")
        check(1 <= self.slices <= 256, "slices", self.slices, "1 to 256")

    @property
    def stage(self) -> TeachSettings:
        """The settings of one stage, which trains on the slices so far.

        With e epochs in each of R stages a row is seen `e * (R + 1) / 2` times on the mean, so that
        `e = 2 * E / (R + 1)` costs as much as E epochs (arXiv 1912.03817).
        """
        return replace(self.teach, epochs=max(1, round(2 * self.teach.epochs / (self.slices + 1))))

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON."""
        return {"shards": self.shards, "slices": self.slices, "teach": self.teach.to_json()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> SisaSettings:
        """Return the settings that `to_json` wrote."""
        return cls(shards=found["shards"], slices=found["slices"], teach=TeachSettings(**found["teach"]))
