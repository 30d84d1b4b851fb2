"""The points of a sweep as a picture: how much retained answers changed against how much was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eul_trainer.fit.stop import Target
from eul_trainer.sweep.choice import Outcome

GREY, BLUE, ORANGE = "#808080", "#3b82c4", "#d97706"


def draw(paths: Sequence[Path], outcomes: Sequence[Outcome], front: Sequence[Outcome], target: Target) -> None:
    """Write the picture, once per path, in the format of its suffix.

    Args:
        paths: The files.
        outcomes: All points; failed ones are not shown.
        front: The Pareto set.
        target: The band, shown as a strip.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(target.low, target.high, color=BLUE, alpha=0.12, label="target band")
    for found in outcomes:
        if found.forget is None:
            continue
        colour = ORANGE if found in front else GREY
        axes.plot(found.forget, found.retain_change, "o", color=colour)
        axes.annotate(found.name, (found.forget, found.retain_change), fontsize=6, color=GREY)
    axes.plot([], [], "o", color=ORANGE, label="Pareto set")
    axes.set_xlabel("held-out forget loss, nats")
    axes.set_ylabel("change of the held-out retain loss, nats")
    axes.legend(frameon=False)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "eul"}):
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(path, metadata=metadata)
