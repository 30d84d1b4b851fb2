"""The pages of an evaluation, made of what `eval`, `attack` and `sequence` wrote: HTML without scripts, Markdown, JSON.

Nothing is loaded from elsewhere. Markdown and JSON hold no row, so that they can be passed on; the HTML shows answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eul_serve.signing.statement import LIMITS
from eul_trainer.evaluation.page import render
from eul_trainer.evaluation.plots.attacks import attack_curves
from eul_trainer.evaluation.plots.losses import loss_bars
from eul_trainer.evaluation.plots.membership import membership_intervals
from eul_trainer.evaluation.plots.sequence import order_plots
from eul_trainer.evaluation.plots.tradeoff import trade_off
from eul_trainer.evaluation.shown.attacks import attack_lines, curves
from eul_trainer.evaluation.shown.comparisons import comparison_lines
from eul_trainer.evaluation.shown.contents import contents
from eul_trainer.evaluation.shown.gaps import gap_lines
from eul_trainer.evaluation.shown.headline import headline
from eul_trainer.evaluation.shown.membership import intervals
from eul_trainer.evaluation.shown.numbers import numbers
from eul_trainer.evaluation.shown.sequence import Order, orders, spreads
from eul_trainer.evaluation.shown.settings import settings
from eul_trainer.evaluation.shown.trade import trades

SHOWN_ROWS, OPEN_ROWS = 12, 2
"""Answers that the page has of each set, and those that are seen without opening anything."""
OUTCOMES = {
    "passed": "passed",
    "below": "too low",
    "above": "too high",
    "gap": "no value",
    "uncovered": "not asked of this bundle",
}
"""What the sides of a finding are called."""


def render_report(
    metrics: Mapping[str, Any],
    attacks: Sequence[Mapping[str, Any]] = (),
    sequences: Sequence[Mapping[str, Any]] = (),
) -> dict[str, str]:
    """Return the pages.

    Args:
        metrics: `metrics.json`.
        attacks: The `attacks` of every `attack.json`.
        sequences: Every `sequence.json`.

    Returns:
        Text by file name: report.html, report.md and report.json.

    Raises:
        InputError: A sequence lacks something.
    """
    parts = [found for sequence in sequences if (found := orders(sequence))]
    values = _values(metrics, attacks, parts)
    answers = {summary["name"]: _shown(metrics["rows"], summary["name"]) for summary in metrics["sets"]}
    page = {**values, "answers": answers, "open_rows": OPEN_ROWS, "plots": _plots(metrics, attacks, parts, values)}
    record = numbers(metrics, attacks, sequences, LIMITS)
    return {
        "report.html": render("report.html.j2", **page, contents=contents(page)),
        "report.md": render("report.md.j2", **values, contents=contents(values)),
        "report.json": json.dumps(record, indent=1) + "\n",
    }


def _values(
    metrics: Mapping[str, Any], attacks: Sequence[Mapping[str, Any]], parts: Sequence[Sequence[Order]]
) -> dict[str, Any]:
    """Return what both templates show."""
    lines = attack_lines(attacks)
    return {
        "headline": headline(metrics["verdicts"]),
        "systems": metrics["systems"],
        "verdicts": metrics["verdicts"],
        "policy": metrics["policy"],
        "outcomes": OUTCOMES,
        "summaries": metrics["sets"],
        "trade": trades(metrics["sets"]),
        "compared": comparison_lines(metrics["comparisons"]),
        "membership": intervals(metrics["comparisons"]),
        "attacks": lines,
        "attacked": [name for name in metrics["systems"] if any(name in line["systems"] for line in lines)],
        "sequences": [{"orders": found, "spreads": spreads(found)} for found in parts],
        "gaps": gap_lines(metrics["gaps"]),
        "settings": settings(metrics),
        "limits": LIMITS,
    }


def _plots(
    metrics: Mapping[str, Any],
    attacks: Sequence[Mapping[str, Any]],
    parts: Sequence[Sequence[Order]],
    values: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the plots by section; what the tables show of the trade-off and of membership is drawn as it is."""
    return {
        "trade": trade_off(values["trade"]),
        "losses": loss_bars(metrics["sets"]),
        "membership": membership_intervals(values["membership"]),
        "attacks": attack_curves(curves(attacks), list(metrics["systems"])),
        "sequences": [order_plots(found, f"sequence-{number}") for number, found in enumerate(parts, 1)],
    }


def _shown(rows: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """Return rows spread evenly over a set, so that every group has some."""
    mine = [row for row in rows if row["set"] == name]
    step = max(1, len(mine) // SHOWN_ROWS)
    return mine[::step][:SHOWN_ROWS]
