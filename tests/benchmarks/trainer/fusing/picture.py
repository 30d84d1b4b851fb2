"""The picture: forgetting lost against retained change, one curve a method, its points marked with N."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

INK = "#808080"
"""Grey that can be read on a light and on a dark page."""


def draw(cells: Mapping[str, Mapping[str, Mapping[str, Any]]], folder: Path, name: str = "fusion") -> None:
    """Write the picture as SVG and PNG; the same numbers give the same SVG.

    Args:
        cells: The table by method and number of requests.
        folder: Where the files go.
        name: Name of the files.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.color_sequences["tab20"]
    for index, (method, row) in enumerate(cells.items()):
        counts = sorted(row, key=int)
        across = [row[count]["retain_change_nats_mean"] for count in counts]
        down = [row[count]["forget_gap_nats_max_mean"] for count in counts]
        axes.plot(across, down, "o-", color=colours[index % 20], label=method, markersize=4, linewidth=1.2)
        for x, y, count in zip(across, down, counts, strict=True):
            axes.annotate(count, (x, y), textcoords="offset points", xytext=(4, 3), fontsize=7, color=INK)
    axes.axvspan(-0.1, 0.1, color="#3a9d63", alpha=0.12, linewidth=0)
    axes.axhline(0.5, color=INK, linestyle=":", linewidth=1)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_yscale("symlog", linthresh=1.0)
    axes.invert_yaxis()
    axes.set_xlabel("change of held-out retain loss, nats (shaded: within 0.1)")
    axes.set_ylabel("forgetting lost by the worst request, nats (up is better; dotted: 0.5)")
    axes.legend(frameon=False, fontsize=7, labelcolor=INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _grey(axes)
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "eul"}):
        figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=150)


def _grey(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
