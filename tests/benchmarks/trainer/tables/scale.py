"""How large a table is: what a small machine can do, and what the papers print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eul_trainer.teaching.settings import TeachSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The size of one table."""

    name: str
    """tiny, small or full."""
    splits: Mapping[str, Mapping[str, Any]]
    """What is forgotten, by the split's name; read by the task's case."""
    teach: TeachSettings
    """How the original and the retrained model are taught."""
    fit: Mapping[str, Any]
    """Settings of every unlearning run that differ from an objective's own."""
    measured: int
    """Most rows of a set that are measured."""
    tokens: int
    """Most tokens of a greedy answer."""
    words: int = 0
    """Words of a text that are kept; 0 keeps all."""
    tune_epochs: int = 2
    """Passes of fine-tuning on the retained rows."""
    shards: int = 2
    """Models of SISA."""
    note: str = ""
    """The scale in words, for the table."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further numbers that one task reads."""


def teach(epochs: int, rate: float = 1.5e-4, batch: int = 8) -> TeachSettings:
    """Return the settings of teaching; the seed is put in later."""
    return TeachSettings(epochs=epochs, learning_rate=rate, batch_size=batch)


# A frozen base in bfloat16 takes a third of the time on a processor that has it; all weights are trained in float32.
_TINY_FIT = {"batch_size": 8, "steps": 16, "dtype": "bfloat16"}
_FULL_FIT = {"batch_size": 32, "steps": 250}

TOFU: dict[str, Scale] = {
    "tiny": Scale(
        name="tiny",
        splits={"1 of 5 authors": {"authors": 5, "forget_authors": 1, "rows_per_author": 5, "held_authors": 1}},
        teach=teach(10, 2e-4, batch=5),
        fit=_TINY_FIT,
        measured=5,
        tokens=16,
        note="5 authors of TOFU's 200, 5 of their 20 questions each: 25 rows taught, 5 forgotten",
    ),
    "small": Scale(
        name="small",
        splits={
            "1 of 20 authors": {"authors": 20, "forget_authors": 1, "held_authors": 2},
            "2 of 20 authors": {"authors": 20, "forget_authors": 2, "held_authors": 2},
        },
        teach=teach(7),
        fit={"batch_size": 16, "steps": 60},
        measured=40,
        tokens=48,
        note="20 authors of TOFU's 200 with all 20 questions: 400 rows taught",
    ),
    "full": Scale(
        name="full",
        splits={name: {"split": name} for name in ("forget01", "forget05", "forget10")},
        teach=teach(7, batch=32),
        fit=_FULL_FIT,
        measured=400,
        tokens=128,
        tune_epochs=5,
        shards=5,
        note="all 200 authors of TOFU, 4,000 rows taught",
    ),
}

IMDB: dict[str, Scale] = {
    "tiny": Scale(
        name="tiny",
        splits={"10 %": {"share": 0.1}},
        teach=teach(4, 1e-4),
        fit=_TINY_FIT,
        measured=24,
        tokens=0,
        words=40,
        extra={"train": 60, "test": 24},
        note="60 of the 20,000 training reviews, cut to 40 words; 24 test reviews",
    ),
    "small": Scale(
        name="small",
        splits={"1 %": {"share": 0.01}, "10 %": {"share": 0.1}},
        teach=teach(3, 5e-5),
        fit={"batch_size": 16, "steps": 60},
        measured=200,
        tokens=0,
        words=128,
        extra={"train": 1000, "test": 200},
        note="1,000 of the 20,000 training reviews, cut to 128 words; 200 test reviews",
    ),
    "full": Scale(
        name="full",
        splits={"0.5 %": {"share": 0.005}, "1 %": {"share": 0.01}, "10 %": {"share": 0.1}},
        teach=teach(3, 5e-5, batch=32),
        fit=_FULL_FIT,
        measured=5000,
        tokens=0,
        words=128,
        shards=5,
        extra={"train": 20000, "test": 25000},
        note="all 20,000 training reviews, cut to 128 words; up to 5,000 rows of a set measured",
    ),
}

SAMSUM: dict[str, Scale] = {
    "tiny": Scale(
        name="tiny",
        splits={"10 %": {"share": 0.1}},
        teach=teach(6, 2e-4, batch=5),
        fit=_TINY_FIT,
        measured=6,
        tokens=20,
        words=60,
        extra={"train": 40, "test": 6},
        note="40 of the 14,732 training dialogues, of at most 60 words; 6 test dialogues",
    ),
    "small": Scale(
        name="small",
        splits={"1 %": {"share": 0.01}, "10 %": {"share": 0.1}},
        teach=teach(4),
        fit={"batch_size": 16, "steps": 60},
        measured=60,
        tokens=48,
        words=120,
        extra={"train": 600, "test": 60},
        note="600 of the 14,732 training dialogues, of at most 120 words; 60 test dialogues",
    ),
    "full": Scale(
        name="full",
        splits={"0.5 %": {"share": 0.005}, "1 %": {"share": 0.01}, "10 %": {"share": 0.1}},
        teach=teach(5, 5e-5, batch=8),
        fit=_FULL_FIT,
        measured=819,
        tokens=96,
        shards=5,
        extra={"train": 14732, "test": 819},
        note="all 14,732 training dialogues",
    ),
}
