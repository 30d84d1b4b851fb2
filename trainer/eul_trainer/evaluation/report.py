"""The pages of an evaluation, made of `metrics.json` and of attacks alone: HTML without scripts, and Markdown.

Nothing is loaded from elsewhere. The Markdown holds no row, so that it can be passed on; the HTML shows answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eul_serve.signing.statement import LIMITS
from eul_trainer.attacks.result import KNOWING
from eul_trainer.evaluation.page import render
from eul_trainer.evaluation.plots import loss_bars
from eul_trainer.evaluation.systems import BASE, TWIN

SHOWN_ROWS = 12
"""Answers that the page shows of each set."""
OUTCOMES = {"passed": "passed", "below": "too low", "above": "too high", "gap": "no value"}
"""What the sides of a finding are called."""


def render_report(metrics: Mapping[str, Any], attacks: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    """Return the pages.

    Args:
        metrics: `metrics.json`.
        attacks: The `attacks` of every `attack.json`.

    Returns:
        Text by file name: report.html and report.md.
    """
    shown = [line for attack in attacks for line in _attack_lines(attack)]
    values = {
        "base": metrics["base"],
        "systems": metrics["systems"],
        "verdicts": metrics["verdicts"],
        "policy": metrics["policy"],
        "outcomes": OUTCOMES,
        "summaries": metrics["sets"],
        "compared": _comparison_lines(metrics["comparisons"]),
        "attacks": shown,
        "attacked": list(dict.fromkeys(name for line in shown for name in line["systems"])),
        "gaps": metrics["gaps"],
        "limits": LIMITS,
        "code": metrics["code"],
    }
    rows = {summary["name"]: _shown(metrics["rows"], summary["name"]) for summary in metrics["sets"]}
    return {
        "report.html": render("report.html.j2", **values, plot=loss_bars(metrics["sets"]), rows=rows),
        "report.md": render("report.md.j2", **values),
    }


def _shown(rows: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """Return rows spread evenly over a set, so that every group has some."""
    mine = [row for row in rows if row["set"] == name]
    step = max(1, len(mine) // SHOWN_ROWS)
    return mine[::step][:SHOWN_ROWS]


def _comparison_lines(comparisons: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"system": system, "set": name, "measure": measure.replace("_", " "), "words": _words(found)}
        for system, sets in comparisons.items()
        for name, measures in sets.items()
        for measure, found in measures.items()
    ]


def _words(found: Any) -> str:  # noqa: ANN401  # a comparison, plain JSON
    """Return a comparison in words."""
    if not isinstance(found, Mapping):
        return f"{found:.3f}"
    if "members" in found:
        leak = "" if found["privleak"] is None else f"; PrivLeak {found['privleak']:+.0f}"
        rows = f"{found['members']} forgotten, {found['others']} unseen rows"
        return f"{found['value']:.3f}, 95 % from {found['low']:.3f} to {found['high']:.3f} ({rows}){leak}"
    if "p" in found:
        rows = f"{found['rows']} and {found['twin_rows']} rows"
        return f"p {found['p']:.3g}, statistic {found['statistic']:.3f}, {found['side']} the twin ({rows})"
    return f"{found['mean']:.3f} in the mean of {len(found['differences'])} measures"


def _attack_lines(attack: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one line for each measure of an attack that is higher for those who know."""
    found = []
    for measure in KNOWING:
        systems = {
            name: numbers[measure] for name, numbers in attack["systems"].items() if numbers.get(measure) is not None
        }
        if systems:
            back = {name: shares.get(measure) for name, shares in attack["recovered"].items()}
            told = [
                f"{name} {share:.2f}" for name, share in back.items() if share is not None and name not in (BASE, TWIN)
            ]
            found.append({**attack, "measure": measure, "systems": systems, "recovered": ", ".join(told)})
    return found
