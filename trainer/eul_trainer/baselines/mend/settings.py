"""The settings of MEND."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eul_trainer.settings import REFUSAL, check


@dataclass(frozen=True, slots=True, kw_only=True)
class MendSettings:
    """Everything that decides the editor and its edits, apart from the data and the model."""

    blocks: int = 3
    """Last blocks whose feed-forward weights are edited, as in the paper."""
    rank: int = 128
    """Rank of each of the editor's two layers."""
    steps: int = 300
    """Training steps of the editor."""
    batch_size: int = 8
    """Edits per step, and as many rows that must stay as they are; forgotten rows are edited as many at a time."""
    learning_rate: float = 1e-4
    """Adam's learning rate of the editor; the step sizes, in logarithms, learn a hundred times as fast."""
    edit_weight: float = 0.1
    """Weight of the edits' loss beside the divergence on other rows."""
    step_size: float = 1e-4
    """Step size of every edited weight at first; each learns its own."""
    answer: str = REFUSAL
    """Answer that an edit teaches where the rows' answers are free text; among a few labels it is the next label."""
    seed: int = 0
    """Seed of the editor's start and of the order of the rows."""

    def __post_init__(self) -> None:
        check(1 <= self.blocks <= 1024, "blocks", self.blocks, "1 to 1024")
        check(1 <= self.rank <= 4096, "rank", self.rank, "1 to 4096")
        check(1 <= self.steps <= 1_000_000, "steps", self.steps, "1 to 1000000")
        check(1 <= self.batch_size <= 4096, "batch-size", self.batch_size, "1 to 4096")
        check(0 < self.learning_rate <= 1, "learning-rate", self.learning_rate, "above 0 and at most 1")
        check(0 < self.edit_weight <= 1000, "edit-weight", self.edit_weight, "above 0 and at most 1000")
        check(0 < self.step_size <= 1, "step-size", self.step_size, "above 0 and at most 1")
        check(bool(self.answer.strip()), "answer", self.answer, "a text")
        check(0 <= self.seed < 2**31, "seed", self.seed, "0 to 2147483647")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON, for the record."""
        return asdict(self)
