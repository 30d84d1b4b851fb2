"""Plots of a report as SVG text, readable on a light and on a dark page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#8a8f98", "#3b82c4", "#d97706", "#3a9d63", "#a855b5")
GREY = "#808080"


def loss_bars(summaries: Sequence[dict[str, Any]]) -> str:
    """Return bars of the answer loss by set and group, one colour per system.

    Args:
        summaries: The sets' summaries, of metrics/summary.py.

    Returns:
        An `<svg>` element.
    """
    labels, columns = [], []
    for summary in summaries:
        groups = summary["groups"] if len(summary["groups"]) > 1 else {summary["name"]: summary}
        for name, part in groups.items():
            labels.append(f"{name}\n({summary['kind']})")
            columns.append(part["systems"])
    return _bars(labels, columns, "loss", "answer loss, nats")


def _bars(labels: Sequence[str], columns: Sequence[dict[str, dict[str, float]]], measure: str, title: str) -> str:
    from matplotlib.figure import Figure

    systems = list(columns[0])
    figure = Figure(figsize=(max(5.0, 1.5 * len(labels)), 3.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(systems)
    for index, system in enumerate(systems):
        places = [column + (index - (len(systems) - 1) / 2) * width for column in range(len(labels))]
        heights = [column[system][measure] for column in columns]
        axes.bar(places, heights, width * 0.92, label=system, color=COLOURS[index % len(COLOURS)])
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylabel(title)
    axes.legend(frameon=False, labelcolor=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.label.set_color(GREY)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(colors=GREY)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    import matplotlib

    data = io.StringIO()
    # Text stays text, ids do not depend on chance, and no date is written: the same numbers give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "eul"}):
        figure.savefig(data, format="svg", transparent=True, metadata={"Date": None})
    text = data.getvalue()
    return text[text.index("<svg") :]
