"""Whether two ways of evaluating found the same, and how much faster one of them was."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from eul_serve.errors import EulError
from eul_trainer.evaluation.evaluate import Evaluation
from eul_trainer.metrics.result import Result
from evaluating.clock import PHASES
from evaluating.plain import PlainEvaluator

LOSS_NATS = 1e-3
"""Largest difference of two losses, and of a token's log-probability or its statistics, nats."""
ROUGE = 0.02
"""Largest difference of a system's mean ROUGE: a near tie may turn an answer, and with it what follows."""


@dataclass(slots=True)
class Agreement:
    """Differences between both ways, gathered chunk by chunk."""

    widest: dict[str, float] = field(default_factory=dict)
    """Largest difference of a number, by its name."""
    answers: list[bool] = field(default_factory=list)
    """Whether both gave the same answer, for every row and system."""
    rouge: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """ROUGE-L recall of both, by system."""

    def add(self, evaluation: Evaluation, plain: Mapping[str, Sequence[Result]], views: PlainEvaluator) -> None:
        """Compare a chunk.

        Args:
            evaluation: What the product's evaluator found.
            plain: Results of the plain way, by system.
            views: The plain evaluator, whose last views are those of these rows.
        """
        for name, results in plain.items():
            mine = views.views[name][-len(results) :]
            for number, (row, other) in enumerate(zip(evaluation.rows, results, strict=True)):
                found = row.systems[name]
                for key in ("loss", "divergence"):
                    self._note(key, getattr(found, key), getattr(other, key))
                self._note("truth_ratio", found.truth_ratio, other.truth_ratio, relative=True)
                for key in ("accuracy", "extraction_strength"):
                    self._note(key, getattr(found, key), getattr(other, key))
                for key in ("logprobs", "means", "deviations"):
                    gap = torch.tensor(getattr(evaluation.views[name][number], key)) - getattr(mine[number], key).cpu()
                    self._note(key, gap.abs().max().item(), 0.0)
                self.answers.append(found.answer == other.answer)
                self.rouge.setdefault(name, []).append((found.rouge_l, other.rouge_l))

    def _note(self, key: str, found: float | None, other: float | None, *, relative: bool = False) -> None:
        if found is not None and other is not None:
            gap = abs(found - other) / (max(found, other) if relative else 1.0)
            self.widest[key] = max(self.widest.get(key, 0.0), gap)

    def check(self) -> dict[str, Any]:
        """Return the differences.

        Returns:
            `widest` by number, `same_answers` as a share, and `rouge_l` means of both ways by system.

        Raises:
            EulError: Both ways did not measure the same.
        """
        means = {
            name: [statistics.mean(part) for part in zip(*pairs, strict=True)] for name, pairs in self.rouge.items()
        }
        apart = {key: gap for key, gap in self.widest.items() if key in ("loss", "logprobs") and gap > LOSS_NATS}
        apart |= {f"ROUGE of {name}": abs(one - two) for name, (one, two) in means.items() if abs(one - two) > ROUGE}
        if apart:
            raise EulError(f"both ways must find the same, but differ: {apart}")
        return {
            "widest": {key: f"{gap:.1e}" for key, gap in self.widest.items()},
            "same_answers": statistics.mean(self.answers),
            "rouge_l": {name: {"product": one, "plain": two} for name, (one, two) in means.items()},
        }


def ratios(product: Sequence[Mapping[str, float]], plain: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return how many times faster the product was: median, least and most of the chunks, by phase and overall.

    Args:
        product: Seconds by phase of every chunk.
        plain: The same of the plain way.

    Returns:
        `scoring`, `answering` and `overall`.
    """
    found = {phase: [two[phase] / one[phase] for one, two in zip(product, plain, strict=True)] for phase in PHASES}
    found["overall"] = [sum(two.values()) / sum(one.values()) for one, two in zip(product, plain, strict=True)]
    return {
        name: {"median": statistics.median(values), "least": min(values), "most": max(values)}
        for name, values in found.items()
    }
