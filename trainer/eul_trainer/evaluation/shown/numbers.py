"""`report.json`: the numbers of a page as plain JSON, without any row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from eul_trainer.evaluation.shown.headline import headline
from eul_trainer.evaluation.shown.trade import trades

SHOWN = ("base", "systems", "verdicts", "policy", "sets", "comparisons", "gaps", "code", "versions")
"""What is taken from `metrics.json` as it is."""


def numbers(
    metrics: Mapping[str, Any],
    attacks: Sequence[Mapping[str, Any]],
    sequences: Sequence[Mapping[str, Any]],
    limits: Sequence[str],
) -> dict[str, Any]:
    """Return the record.

    Args:
        metrics: `metrics.json`.
        attacks: The `attacks` of every `attack.json`.
        sequences: Every `sequence.json`.
        limits: What the numbers do not say.

    Returns:
        What the pages show, but for the answers.
    """
    return {
        "headline": headline(metrics["verdicts"]),
        **{name: metrics[name] for name in SHOWN if name in metrics},
        "trade_off": [asdict(trade) for trade in trades(metrics["sets"])],
        "attacks": list(attacks),
        "sequences": list(sequences),
        "limits": list(limits),
    }
