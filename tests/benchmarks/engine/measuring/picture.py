"""The picture of the throughput table: each ratio over the bundles in flight, one curve a rank."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

INK = "#808080"
"""Grey that can be read on a light and on a dark page."""
COLOURS = {"8": "#3b6fd4", "16": "#3a9d63", "64": "#e58a1f", "160": "#d6453d", "480": "#8a63c9"}
PANELS = {
    "decode_vs_base": "decode against adapters off",
    "prefill_vs_base": "prefill against adapters off",
    "decode_vs_lora": "decode against vLLM's LoRA",
    "prefill_vs_lora": "prefill against vLLM's LoRA",
}


def draw(summary: Mapping[str, Any], path: Path) -> None:
    """Write the picture; the same numbers give the same SVG.

    Args:
        summary: Ratios by name, rank and number of bundles.
        path: The SVG file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    for axes, (ratio, title) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for rank, row in summary[ratio].items():
            counts = sorted(row, key=int)
            values = [row[count] for count in counts]
            axes.plot([int(count) for count in counts], values, "o-", color=COLOURS.get(rank, INK), label=rank, ms=4)
        axes.axhline(1.0, color=INK, linestyle=":", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_ylim(bottom=0)
        axes.set_title(title, color=INK, fontsize=10)
        axes.set_xlabel("bundles in flight", color=INK, fontsize=9)
        axes.tick_params(colors=INK, which="both", labelsize=8)
        for spine in axes.spines.values():
            spine.set_color(INK)
    curves, ranks = figure.axes[0].get_legend_handles_labels()
    if curves:
        figure.legend(curves, [f"rank {rank}" for rank in ranks], frameon=False, labelcolor=INK, fontsize=9,
                      loc="outside lower center", ncols=len(ranks))  # fmt: skip
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "eul"}):
        figure.savefig(path, transparent=True, metadata={"Date": None})
