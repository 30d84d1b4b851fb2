"""What is known of one row: how each system answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["forget", "retain", "unseen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one system answers one row."""

    loss: float
    """Mean cross-entropy over the reference answer's tokens, nats."""
    accuracy: float
    """Share of those tokens that are the system's first choice, under teacher forcing: exact memorisation."""
    extraction_strength: float
    """Share of the answer, from its end, that the system completes by itself."""
    divergence: float | None
    """Mean KL(base || system) of those tokens, nats; None for the base model."""
    rouge_l: float
    """ROUGE-L recall of the greedy answer."""
    rouge_l_f1: float
    """ROUGE-L F1 of it: verbatim memorisation for the head of a text, knowledge memorisation for a question."""
    gibberish: bool
    """Whether the greedy answer is no longer language (metrics/gibberish.py)."""
    answer: str
    """The greedy answer."""
    tokens: int = 1
    """Tokens of the reference answer."""
    truth_ratio: float | None = None
    """R of metrics/truth_ratio.py, geometric; None where the row has no paraphrased and wrong answers."""
    truth_ratio_arithmetic: float | None = None
    """The same, arithmetic."""
    label: str | None = None
    """The likeliest of the row's labels; None where it has none."""
    masked_word_loss: float | None = None
    """Mean cross-entropy of words masked in the question, nats; None where it was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """One row, and how each system answers it."""

    set: str
    """Name of the row's set."""
    kind: Kind
    """Whether the set is to be forgotten, to be kept, or was never seen."""
    group: str
    """The row's group within the set."""
    prompt: str
    """The question."""
    completion: str
    """The reference answer."""
    systems: dict[str, Result]
    """Results by system: `base`, the bundles by name, and `twin`."""


def to_json(rows: Sequence[RowResult]) -> list[dict[str, Any]]:
    """Return the rows as plain JSON."""
    return [asdict(row) for row in rows]
