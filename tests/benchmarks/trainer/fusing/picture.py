"""The picture: forgetting against retained change, one curve a method, its points marked with the number of requests.

Two panels: the request that fell furthest below its own layer, and the one that was sent furthest beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

INK = "#808080"
"""Grey that can be read on a light and on a dark page."""
SHOWN = {
    "default": "#d6453d",
    "paper": "#3b6fd4",
    "sum": "#e58a1f",
    "concat, rho 10": "#b58b00",
    "compress, rank of two": "#8a63c9",
    "gate": "#4a9e9e",
    "distil": "#c25fa5",
    "trained on top, sum": "#3a9d63",
    "in sequence": "#7a5a3a",
    "on the union": "#5b8c1f",
}
"""Colour of the methods that stand for their kind; all others are thin grey lines, and in the table."""
PANELS = {
    "forget_gap_nats_max_mean": "forgetting lost by the worst request, nats (dotted: 0.5)",
    "forget_gap_nats_min": "the request forgotten furthest beyond its own layer, nats",
}


def draw(cells: Mapping[str, Mapping[str, Mapping[str, Any]]], folder: Path, name: str = "fusion") -> None:
    """Write the picture as SVG and PNG; the same numbers give the same SVG.

    Args:
        cells: The table by method and number of requests.
        folder: Where the files go.
        name: Name of the files.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 5.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (measure, label) in zip(panels, PANELS.items(), strict=True):
        for method, row in sorted(cells.items(), key=lambda cell: cell[0] in SHOWN):
            _curve(axes, method, row, measure)
        axes.axvspan(-0.1, 0.1, color="#3a9d63", alpha=0.12, linewidth=0)
        axes.set_xscale("symlog", linthresh=0.003)
        axes.set_xlim(left=-0.003)
        axes.set_yscale("symlog", linthresh=1.0)
        axes.invert_yaxis()
        axes.set_xlabel("change of held-out retain loss, nats (shaded: within 0.1)")
        axes.set_ylabel(label)
        _grey(axes)
    panels[0].axhline(0.5, color=INK, linestyle=":", linewidth=1)
    curves = {method: curve for curve, method in zip(*panels[0].get_legend_handles_labels(), strict=True)}
    names = [method for method in SHOWN if method in curves]
    figure.legend(
        [curves[method] for method in names], names,
        frameon=False, fontsize=8, labelcolor=INK, loc="outside lower center", ncols=5,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "eul"}):
        figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=150)


def _curve(axes: Any, method: str, row: Mapping[str, Mapping[str, Any]], measure: str) -> None:
    counts = sorted(row, key=int)
    across = [row[count]["retain_change_nats_mean"] for count in counts]
    down = [row[count][measure] for count in counts]
    if method not in SHOWN:
        axes.plot(across, down, "-", color=INK, alpha=0.35, linewidth=0.7)
        return
    axes.plot(across, down, "o-", color=SHOWN[method], label=method, markersize=4, linewidth=1.4)
    for x, y, count in zip(across, down, counts, strict=True):
        axes.annotate(count, (x, y), textcoords="offset points", xytext=(4, 3), fontsize=7, color=SHOWN[method])


def _grey(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
