"""What forgetting costs: the change of what is forgotten across, the change of what is kept upwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eul_trainer.evaluation.plots.drawing import INK, Plot, draw, legend, short, styles
from eul_trainer.evaluation.shown.trade import Trade

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 0.05
"""Least height of the axis of what is kept to each side of zero, nats: below it, differences are no differences."""


def trade_off(found: Sequence[Trade]) -> Plot | None:
    """Draw a panel for each set, one point a system.

    Args:
        found: Every system on every set.

    Returns:
        The plot; None where there is nothing to draw.
    """
    if not found:
        return None
    sets = list(dict.fromkeys(trade.set for trade in found))
    rows = (len(sets) + 1) // 2
    return draw(
        "trade-off",
        "Forgotten against kept, one point a system",
        "Across: how much the loss of the forgotten set rose. Upwards: how much the loss of what is kept changed, "
        "ideally not at all. The base model stands at zero; a bundle should lie where a twin lies, or would.",
        0.6 + 2.4 * rows,
        lambda figure: _paint(figure, found, sets, rows),
    )


def _paint(figure: Figure, found: Sequence[Trade], sets: Sequence[str], rows: int) -> None:
    panels = figure.subplots(rows, min(2, len(sets)), squeeze=False, sharey=True)
    shown = styles(list(dict.fromkeys(trade.system for trade in found)))
    reach = max(LEAST, *(1.2 * abs(trade.kept) for trade in found))
    for axes in panels.flat[len(sets) :]:
        axes.remove()
    for axes, name in zip(panels.flat, sets, strict=False):
        axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        for trade in (trade for trade in found if trade.set == name):
            style = shown[trade.system]
            size = 12 if style.marker == "*" else 8
            axes.plot(trade.forgotten, trade.kept, style.marker, color=style.colour, markersize=size, alpha=0.85)
        axes.margins(x=0.12)
        axes.set_ylim(-reach, reach)
        axes.set_title(short(name))
        axes.grid()
    figure.supxlabel("change of the forgotten set's loss, nats", fontsize=10)
    figure.supylabel("change of what is kept, nats", fontsize=10)
    legend(figure, shown)
