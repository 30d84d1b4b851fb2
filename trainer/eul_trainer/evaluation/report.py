"""The HTML page of an evaluation: one file, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eul_trainer.evaluation.page import render
from eul_trainer.evaluation.plots import loss_bars
from eul_trainer.metrics.result import RowResult
from eul_trainer.metrics.summary import summarise

SHOWN_ROWS = 12
"""Answers that the page shows of each set."""


def render_report(rows: Sequence[RowResult], systems: dict[str, str | None], base: str) -> str:
    """Return the page.

    Args:
        rows: The results.
        systems: Revision by system; None for the base model.
        base: Fingerprint of the base model.

    Returns:
        A self-contained HTML page.
    """
    summaries = summarise(rows)
    return render(
        "report.html.j2",
        summaries=summaries,
        systems=systems,
        base=base,
        plot=loss_bars(summaries),
        rows={summary["name"]: _shown(rows, summary) for summary in summaries},
    )


def _shown(rows: Sequence[RowResult], summary: dict[str, Any]) -> list[RowResult]:
    """Return rows spread evenly over a set, so that every group has some."""
    mine = [row for row in rows if row.set == summary["name"]]
    step = max(1, len(mine) // SHOWN_ROWS)
    return mine[::step][:SHOWN_ROWS]
