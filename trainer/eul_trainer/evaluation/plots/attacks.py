"""What attacks bring out by what they cost: a panel for each attack, a line for each system."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eul_trainer.evaluation.plots.drawing import Plot, Style, draw, legend, short, styles
from eul_trainer.evaluation.shown.attacks import Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CALLED = {"rouge_l": "ROUGE-L", "chosen": "chosen", "seen": "seen", "probability": "probability"}
COSTS = {
    "prompts: prefix": "words that are known", "prompts: examples": "rows that are known",
    "choosing: top": "tokens looked at", "sampling": "answers drawn", "rounding": "bits", "relearning": "steps",
}  # fmt: skip
"""What a budget is, by the beginning of a curve's name."""


def attack_curves(found: Sequence[Curve], systems: Sequence[str]) -> list[Plot]:
    """Draw for each set the attacks with several budgets, and those with one.

    Args:
        found: The curves.
        systems: Names of all systems on the page, in their order: each looks as in every other plot.

    Returns:
        The plots.
    """
    there = {name for curve in found for name in curve.systems}
    shown = {name: style for name, style in styles(systems).items() if name in there}
    plots = []
    for number, name in enumerate(dict.fromkeys(curve.set for curve in found), 1):
        mine = [curve for curve in found if curve.set == name]
        lines = [curve for curve in mine if len(curve.budgets) > 1]
        points = [curve for curve in mine if len(curve.budgets) == 1]
        if lines:
            plots.append(_lines(f"attacks-{number}", name, lines, shown))
        if points:
            plots.append(_points(f"asked-{number}", name, points, shown))
    return plots


def _lines(ident: str, name: str, found: Sequence[Curve], shown: dict[str, Style]) -> Plot:
    rows = (len(found) + 1) // 2

    def paint(figure: Figure) -> None:
        for place, curve in enumerate(found, 1):
            _line(figure.add_subplot(rows, 2, place), curve, shown)
        legend(figure, shown)

    return draw(
        ident,
        f"Attacks on {name}, by their budget",
        "How much of the true answer each attack brings out, from 0 to 1. A bundle should stay with the twin, or with "
        "what the plain question gives, and far from the base model.",
        0.5 + 2.1 * rows,
        paint,
    )


def _points(ident: str, name: str, found: Sequence[Curve], shown: dict[str, Style]) -> Plot:
    return draw(
        ident,
        f"Attacks on {name} that have one budget",
        "How much of the true answer each brings out, from 0 to 1.",
        1.0 + 0.24 * len(found),
        lambda figure: _dots(figure, found, shown),
    )


def _line(axes: Any, curve: Curve, shown: dict[str, Style]) -> None:  # noqa: ANN401  # matplotlib has no types
    places = range(len(curve.budgets))
    for name, values in curve.systems.items():
        style = shown[name]
        axes.plot(places, values, color=style.colour, marker=style.marker, markersize=5, linewidth=1.5, alpha=0.85)
    axes.set_xticks(places, [f"{budget:g}" for budget in curve.budgets])
    axes.set_xlabel(next((cost for start, cost in COSTS.items() if curve.name.startswith(start)), "budget"))
    axes.set_ylabel(CALLED[curve.measure])
    axes.set_ylim(-0.04, 1.04)
    axes.set_title(short(curve.name))
    axes.grid(axis="y")


def _dots(figure: Figure, found: Sequence[Curve], shown: dict[str, Style]) -> None:
    axes = figure.subplots()
    for row, curve in enumerate(found):
        for name, values in curve.systems.items():
            style = shown[name]
            axes.plot(values[0], row, style.marker, color=style.colour, markersize=6, alpha=0.85)
    axes.set_yticks(range(len(found)), [f"{short(curve.name)} ({CALLED[curve.measure]})" for curve in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.grid()
    legend(figure, shown)
