"""The settings of full-weights training, each with one default, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eul_trainer.settings import check

DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachSettings:
    """Everything that decides taught weights, apart from the data and the model."""

    epochs: int = 7
    """Passes over the rows."""
    learning_rate: float = 1.5e-4
    """Highest learning rate of AdamW, reached after the warm-up; it then falls linearly to zero."""
    batch_size: int = 8
    """Rows per step."""
    seed: int = 0
    """Seed of the order of the rows."""
    warm_up: float = 0.06
    """Share of all steps in which the learning rate rises, 0 to 1."""
    weight_decay: float = 0.0
    """AdamW's weight decay, per step and unit of learning rate."""
    clip: float = 1.0
    """Largest gradient norm; a longer gradient is scaled down to it."""
    dtype: str = "auto"
    """What products are computed in: auto, float32 or bfloat16; weights and sums are float32 always."""

    def __post_init__(self) -> None:
        check(1 <= self.epochs <= 10_000, "epochs", self.epochs, "1 to 10000")
        check(0 < self.learning_rate <= 1, "learning-rate", self.learning_rate, "above 0 and at most 1")
        check(1 <= self.batch_size <= 4096, "batch-size", self.batch_size, "1 to 4096")
        check(0 <= self.seed < 2**31, "seed", self.seed, "0 to 2147483647")
        check(0 <= self.warm_up < 1, "warm-up", self.warm_up, "0 to below 1")
        check(0 <= self.weight_decay <= 1, "weight-decay", self.weight_decay, "0 to 1")
        check(0 < self.clip <= 1e6, "clip", self.clip, "above 0 and at most 1000000")
        check(self.dtype in DTYPES, "dtype", self.dtype, f"one of {', '.join(DTYPES)}")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON, for the record."""
        return asdict(self)
