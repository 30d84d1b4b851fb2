"""The settings of a training run, each with one default, checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from eul_serve.format.config import ACTIVATIONS, MAX_RANK
from eul_trainer.allowed import check as check
from eul_trainer.fusion.settings import RHO
from eul_trainer.model.depth import ALL, FORMS, well_formed
from eul_trainer.objectives import NAMES

if TYPE_CHECKING:
    from eul_trainer.objectives.catalog import ObjectiveSpec

TRAINABLE = ("layer", "lora", "full")
"""What can be trained: unlearning layers, a LoRA, or all weights."""
DTYPES = ("float32", "bfloat16")
"""Precisions of a frozen base model."""
RETAIN_TERMS = ("nll", "kl")
"""How retained answers are held: their loss, or their divergence from the base model."""
STARTS: dict[str, dict[str, Any]] = {
    "lora": {"learning_rate": 5e-4, "least_steps": 0},
    "full": {"learning_rate": 2e-5, "least_steps": 0},
}
"""Defaults by what is trained, where they are not those of a layer."""
WITHOUT_LAYERS: dict[str, dict[str, Any]] = {
    "lora": {"settle": 0.0, "shift": 0.0, "statistics": "none"},
    "full": {"settle": 0.0, "shift": 0.0, "scale": 1.0, "statistics": "none"},
}
"""Settings that only unlearning layers have a use for; a LoRA can be scaled, a whole model cannot."""
STATISTICS = ("units", "full", "none")
"""What is stored for a later fusion: moments of the hidden units, those of the inputs and gates too, or nothing."""
REFUSAL = "I'm sorry, I don't have any information about that."


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """Everything that decides a trained layer, apart from the data and the base model."""

    objective: str = "bounded"
    """Objective, by its name in the catalog."""
    trainable: str = "layer"
    """What is trained: layer, lora or full."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weights of the objective that differ from its defaults."""
    retain_term: str | None = None
    """Retain term of an objective that has a choice: nll or kl; None takes the objective's own."""
    rank: int = 16
    """Hidden units per layer."""
    activation: str = "relu"
    """Activation between the projections: relu, gelu or silu."""
    steps: int = 60
    """Most optimiser steps."""
    least_steps: int = 40
    """Steps before which reaching the target ends nothing, as far as `steps` allows: a layer that is trained on there
    grows quieter on retained rows."""
    seed: int = 0
    """Seed of the order of the rows."""
    init_seed: int = 0
    """Seed of every D; requests to be fused share it."""
    learning_rate: float = 2e-3
    """Highest learning rate of AdamW."""
    batch_size: int = 16
    """Rows per step, about three eighths of them to forget."""
    target_low: float = 4.0
    """Forget loss at which training may stop, nats."""
    target_high: float = 5.0
    """Forget loss above which training goes on, pulling it back, nats."""
    refusal: str = REFUSAL
    """Answer taught for forgotten questions; empty teaches none."""

    settle: float = RHO
    """Weight of retained rows when the trained layer is solved once more against them; 0 leaves it as trained."""
    shift: float = 2.0
    """How far units are moved down on retained rows before that, in their own rms on forgotten ones; 0 leaves them."""
    scale: float = 4.0
    """Largest factor (and inverse of the smallest) that brings the final layer to its target; 1 leaves it as it is."""
    unrelated_limit: float = 1.0
    """Rise of the loss on unrelated rows at which the run is given up, nats; 0 measures nothing."""
    blocks: str = "all"
    """Transformer blocks that get a layer: all, a range such as 20-29 (from 0), or top-10."""
    dtype: str = "float32"
    """Precision of the frozen base model: float32 or bfloat16; the layers and all losses are float32."""
    checkpointing: bool = False
    """Whether activations are computed again on the way back: less memory, about half more time."""
    cache_memory: int = 1024
    """Memory for the teacher's predictions, and as much for states below the lowest trained block, MiB; more goes to a
    file in the temporary directory."""
    statistics: str = "units"
    """What is stored for a later fusion: units (their moments), full (gates and the inputs' moments too) or none."""
    statistics_rank: int = 0
    """Eigenvectors kept of a Gram of inputs; 0 keeps it exactly."""

    def __post_init__(self) -> None:
        check(self.objective in NAMES, "objective", self.objective, f"one of {', '.join(NAMES)}")
        check(self.trainable in TRAINABLE, "trainable", self.trainable, f"one of {', '.join(TRAINABLE)}")
        term = self.retain_term
        check(term is None or term in RETAIN_TERMS, "retain-term", term, f"one of {', '.join(RETAIN_TERMS)}")
        for name, value in self.weights.items():
            check(isinstance(value, (int, float)) and math.isfinite(value), f"weight {name}", value, "a finite number")
        check(self.activation in ACTIVATIONS, "activation", self.activation, f"one of {', '.join(ACTIVATIONS)}")
        check(well_formed(self.blocks), "blocks", self.blocks, FORMS)
        check(self.dtype in DTYPES, "dtype", self.dtype, f"one of {', '.join(DTYPES)}")
        check(0 <= self.cache_memory <= 2**24, "cache-memory", self.cache_memory, "0 to 16777216 MiB")
        if self.trainable == "full":
            check(self.blocks == ALL, "blocks", self.blocks, "all with --trainable full")
            check(self.dtype == "float32", "dtype", self.dtype, "float32 with --trainable full, for small steps")
        check(1 <= self.rank <= MAX_RANK, "rank", self.rank, f"1 to {MAX_RANK}")
        check(1 <= self.steps <= 1_000_000, "steps", self.steps, "1 to 1000000")
        check(0 <= self.least_steps <= 1_000_000, "least-steps", self.least_steps, "0 to 1000000")
        check(0 <= self.seed < 2**31, "seed", self.seed, "0 to 2147483647")
        check(0 <= self.init_seed < 2**31, "init-seed", self.init_seed, "0 to 2147483647")
        check(0 < self.learning_rate <= 1, "learning-rate", self.learning_rate, "above 0 and at most 1")
        check(0 <= self.settle <= 1e6, "settle", self.settle, "0 to 1000000")
        check(0 <= self.shift <= 100, "shift", self.shift, "0 to 100")
        check(self.statistics in STATISTICS, "statistics", self.statistics, f"one of {', '.join(STATISTICS)}")
        check(0 <= self.statistics_rank <= 65536, "statistics-rank", self.statistics_rank, "0 to 65536")
        check(1 <= self.scale <= 1000, "scale", self.scale, "1 to 1000")
        for name, value in WITHOUT_LAYERS.get(self.trainable, {}).items():
            found = getattr(self, name)
            check(found == value, name, found, f"{value} with --trainable {self.trainable}: there is no layer for it")
        check(0 <= self.unrelated_limit <= 1000, "unrelated-limit", self.unrelated_limit, "0 to 1000")
        check(2 <= self.batch_size <= 4096, "batch-size", self.batch_size, "2 to 4096")
        given = f"{self.target_low} and {self.target_high}"
        check(0 < self.target_low < self.target_high, "target-low and --target-high", given, "0 < low < high")
        _check_weights(self)
        paired = _spec(self.objective).paired
        check(bool(self.refusal) or not paired, "refusal", self.refusal, f"a text, as {self.objective!r} needs one")

    @property
    def forget_rows(self) -> int:
        """Rows to forget in a mixed batch."""
        return max(1, round(self.batch_size * 3 / 8))

    @property
    def retain_rows(self) -> int:
        """Rows to keep in a mixed batch."""
        return self.batch_size - self.forget_rows

    @property
    def refusal_rows(self) -> int:
        """Forgotten questions with the refusal as their answer, beside the mixed batch."""
        spec = _spec(self.objective)
        if not (self.refusal and spec.refusal):
            return 0
        return self.forget_rows if spec.paired else max(1, self.batch_size // 4)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON, for the manifest."""
        return asdict(self)


def _spec(objective: str) -> ObjectiveSpec:
    # Imported when asked: command lines read settings for their help, and must not wait for torch.
    from eul_trainer.objectives.catalog import OBJECTIVES

    return OBJECTIVES[objective]


def _check_weights(settings: FitSettings) -> None:
    from eul_trainer.objectives.catalog import make_weights

    make_weights(settings)


def override(settings: FitSettings, given: Mapping[str, object]) -> FitSettings:
    """Return settings with the given values in place; None leaves a setting as it is."""
    return FitSettings(**{**settings.to_json(), **{name: value for name, value in given.items() if value is not None}})


def default_settings(objective: str, trainable: str = "layer") -> FitSettings:
    """Return the defaults of an objective; those of `paper` are the printed ones.

    Args:
        objective: Name of the objective.
        trainable: What is trained; a LoRA and whole models start with lower learning rates, and are not settled.

    Returns:
        The settings.
    """
    defaults = _spec(objective).defaults if objective in NAMES else {}
    own = STARTS.get(trainable, {}) if objective != "paper" else {}
    found = {**own, **defaults, **WITHOUT_LAYERS.get(trainable, {})}
    return FitSettings(objective=objective, trainable=trainable, **found)
