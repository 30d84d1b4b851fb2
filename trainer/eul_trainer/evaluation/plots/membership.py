"""Whether forgotten rows can be told from rows never seen: areas with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eul_trainer.evaluation.plots.drawing import INK, Plot, draw, legend, short, styles
from eul_trainer.evaluation.shown.membership import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE = 0.16
"""Height of an interval, inches."""


def membership_intervals(found: Sequence[Interval]) -> Plot | None:
    """Draw a panel for each set, with an interval for each attack and system.

    Args:
        found: The areas.

    Returns:
        The plot; None where there is nothing to draw.
    """
    if not found:
        return None
    sets = list(dict.fromkeys(interval.set for interval in found))
    heights = [_height([interval for interval in found if interval.set == name]) for name in sets]
    return draw(
        "membership",
        "Membership inference, with 95 % intervals",
        "Area under the ROC curve of forgotten rows against rows never seen. The line at 0.5 is a guess; to its right "
        "the rows still look known, to its left stranger than what was never seen.",
        0.8 + sum(heights),
        lambda figure: _paint(figure, found, sets, heights),
    )


def _height(found: Sequence[Interval]) -> float:
    return 0.5 + sum(0.1 + LINE * len(group) for group in _by_attack(found).values())


def _by_attack(found: Sequence[Interval]) -> dict[str, list[Interval]]:
    attacks = dict.fromkeys(interval.attack for interval in found)
    return {attack: [interval for interval in found if interval.attack == attack] for attack in attacks}


def _paint(figure: Figure, found: Sequence[Interval], sets: Sequence[str], heights: Sequence[float]) -> None:
    panels = figure.subplots(len(sets), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    shown = styles(list(dict.fromkeys(interval.system for interval in found)))
    shown = {name: style for name, style in shown.items() if name in {interval.system for interval in found}}
    for axes, name in zip(panels, sets, strict=True):
        groups = _by_attack([interval for interval in found if interval.set == name])
        axes.axvline(0.5, color=INK, linewidth=1, linestyle="--")
        for row, group in enumerate(groups.values()):
            for place, interval in enumerate(group):
                style = shown[interval.system]
                height = row + (place - (len(group) - 1) / 2) * 0.75 / len(group)
                axes.plot([interval.low, interval.high], [height, height], color=style.colour, linewidth=1.6)
                axes.plot(interval.value, height, style.marker, color=style.colour, markersize=5)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_title(short(name))
        axes.grid(axis="x")
    panels[-1].set_xlabel("area under the ROC curve")
    legend(figure, shown)
