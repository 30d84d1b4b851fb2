"""Sampling: of many answers drawn by chance, the one that repeats most of what was forgotten.

A greedy answer shows the likeliest words alone; what is hidden behind them may come up in one draw of many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eul_trainer.attacks.result import AttackResult
from eul_trainer.metrics.rouge import rouge_l_recall
from eul_trainer.records import Row


def sampling(
    rows: Sequence[Row], answers: Mapping[str, Sequence[Sequence[str]]], chosen: str, temperature: float
) -> list[AttackResult]:
    """Return what the best of so many answers repeats.

    Args:
        rows: The forgotten rows.
        answers: Per system and row, the answers in the order in which they were drawn.
        chosen: The set's name.
        temperature: What they were drawn at.

    Returns:
        One result for 1, 2, 5, 10 ... answers up to all of them: the mean of the best ROUGE-L recall of each row.
    """
    most = min(len(drawn) for part in answers.values() for drawn in part)
    counts = sorted({count for count in (1, 2, 5, 10, 20, 50, 100) if count < most} | {most})
    recalls = {
        name: [[rouge_l_recall(row.completion, text) for text in drawn] for row, drawn in zip(rows, part, strict=True)]
        for name, part in answers.items()
    }
    return [
        AttackResult(
            kind="sampling",
            name=f"best-of-{count}-at-{temperature:g}",
            budget=count,
            set=chosen,
            rows=len(rows),
            systems={
                name: {"rouge_l": round(sum(max(drawn[:count]) for drawn in part) / len(part), 6)}
                for name, part in recalls.items()
            },
        )
        for count in counts
    ]
