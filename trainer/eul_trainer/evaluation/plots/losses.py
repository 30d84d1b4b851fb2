"""The answer loss of every set and system, as bars: which request is forgotten, and what is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eul_trainer.evaluation.plots.drawing import Plot, draw, legend, short, styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BAR = 0.17
"""Height of a bar, inches."""


def loss_bars(summaries: Sequence[Mapping[str, Any]]) -> Plot:
    """Draw the loss by set and group, one colour per system.

    Args:
        summaries: The sets' summaries, of metrics/summary.py.

    Returns:
        The plot.
    """
    labels: list[str] = []
    columns: list[Mapping[str, Mapping[str, float]]] = []
    for summary in summaries:
        several = len(summary["groups"]) > 1
        kind = ", ".join(filter(None, (summary["kind"], summary.get("request"))))
        for name, part in summary["groups"].items() if several else [(summary["name"], summary)]:
            labels.append(f"{short(name)}\n({short(kind)})")
            columns.append(part["systems"])
    systems = list(columns[0])
    return draw(
        "losses",
        "Mean loss of the true answer, by set and system",
        "A bar for each system, in nats: long on what is forgotten, and as long as the base model's on what is kept.",
        1.1 + len(labels) * (BAR * len(systems) + 0.2),
        lambda figure: _paint(figure, labels, columns),
    )


def _paint(figure: Figure, labels: Sequence[str], columns: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    axes = figure.subplots()
    shown = styles(list(columns[0]))
    width = 0.8 / len(shown)
    for index, (system, style) in enumerate(shown.items()):
        places = [column + (index - (len(shown) - 1) / 2) * width for column in range(len(labels))]
        axes.barh(places, [column[system]["loss"] for column in columns], width * 0.9, color=style.colour)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("loss of the true answer, nats")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    legend(figure, shown)
