"""The loss of every set while requests come and go: a plot for each order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from eul_trainer.evaluation.plots.drawing import FAINT, MARKERS, SERIES, Plot, draw, short
from eul_trainer.evaluation.shown.sequence import Order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = {"forget": "-", "retain": "--", "unseen": ":"}
"""How a set's line is drawn, by its kind."""


def order_plots(found: Sequence[Order], name: str = "sequence") -> list[Plot]:
    """Draw every order of a sequence.

    Args:
        found: The orders.
        name: What the plots' names begin with.

    Returns:
        The plots.
    """
    return [
        draw(
            f"{name}-{number}",
            f"Loss while requests come and go, order {number} of {len(found)}",
            "A line for each set, over the steps in their order. A forgotten set should rise when its request is fused "
            "and return when it is revoked, and the others should not move; what is kept is dashed"
            + (", its range over all orders shaded." if len(found) > 1 else "."),
            3.4 + 0.25 * ((len(order.kinds) + 2) // 3),
            partial(_paint, order=order, found=found),
        )
        for number, order in enumerate(found, 1)
    ]


def _paint(figure: Figure, order: Order, found: Sequence[Order]) -> None:
    axes = figure.subplots()
    places = range(len(order.steps) + 1)
    for number, (name, kind) in enumerate(order.kinds.items()):
        colour = SERIES[number % len(SERIES)]
        if kind != "forget":
            _shade(axes, name, colour, found)
        axes.plot(
            places,
            [order.before[name], *(step.losses[name] for step in order.steps)],
            LINES.get(kind, "-"),
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            linewidth=1.6,
            label=f"{short(name)} ({kind})",
        )
    labels = ["before", *(f"{step.action} {short(step.request)}" for step in order.steps)]
    axes.set_xticks(places, labels, rotation=90 if len(labels) > 12 else 40, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", labelsize=7 if len(labels) > 12 else 9)
    axes.axvline(sum(step.action == "fuse" for step in order.steps) + 0.5, color=FAINT)
    axes.set_ylabel("loss of the true answer, nats")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=min(3, len(order.kinds)))


def _shade(axes: Any, name: str, colour: str, found: Sequence[Order]) -> None:  # noqa: ANN401  # matplotlib has no types
    """Shade the range of a set's loss over all orders, step by step."""
    lines = [
        [order.before[name], *(step.losses[name] for step in order.steps)] for order in found if name in order.kinds
    ]
    low, high = (list(map(choose, zip(*lines, strict=False))) for choose in (min, max))
    axes.fill_between(range(len(low)), low, high, color=colour, alpha=0.2, linewidth=0)
