"""Drawings as SVG text for inside an HTML page: colours are the page's, so they suit light, dark and paper."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eul_trainer.evaluation.roles import BASE, TWIN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 6.4
"""Width of every drawing, inches: what fits a phone when scrolled a little, and a desktop when drawn larger."""
INK, FAINT = "#010101", "#010102"
"""Colours that no drawing has: they stand for the page's text and lines."""
SERIES = tuple(f"#0102{number:02x}" for number in range(8))
"""Stand for the page's eight colours of series; the first is the base model's."""
MARKERS = ("s", "D", "^", "v", "P", "X", "h")
LONGEST = 26
"""Letters of a name in a drawing; the table beside it has all of them."""
SETTINGS = {
    # Text stays text, and ids do not depend on chance: the same numbers give the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "eul",
    # A name with two dollar signs is a name, not a formula.
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 10,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A drawing, and the words that stand for it."""

    name: str
    """Its name, different from every other's on a page: its ids begin with it."""
    title: str
    """What it is, in a few words."""
    text: str
    """How to read it."""
    svg: str
    """An `<svg>` element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a system looks in every drawing."""

    colour: str
    """One of SERIES."""
    marker: str
    """A marker of matplotlib, different for systems of one colour."""


def styles(systems: Sequence[str]) -> dict[str, Style]:
    """Return how systems look: the base model grey and round, the twin a star, others by their order.

    Args:
        systems: Their names.

    Returns:
        A style for each.
    """
    others = [name for name in systems if name != BASE]
    found = {
        name: Style(colour=SERIES[1 + place % 7], marker="*" if name == TWIN else MARKERS[place % 7])
        for place, name in enumerate(others)
    }
    return {BASE: Style(colour=SERIES[0], marker="o")} | found


def draw(name: str, title: str, text: str, height: float, paint: Callable[[Figure], None]) -> Plot:
    """Draw.

    Args:
        name: Name of the plot.
        title: What it is.
        text: How to read it.
        height: Height in inches.
        paint: Paints on an empty figure.

    Returns:
        The plot.
    """
    import matplotlib
    from matplotlib.figure import Figure

    data = io.StringIO()
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        # Letters that matplotlib's own font lacks are drawn by the reader's browser.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure)
        nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(data, format="svg", transparent=True, metadata=nothing)
    return Plot(name=name, title=title, text=text, svg=_inline(data.getvalue(), name, f"{title}. {text}"))


def _inline(text: str, name: str, label: str) -> str:
    """Return the element as it may stand on a page beside others."""
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for number, colour in enumerate(SERIES):
        text = text.replace(colour, f"var(--series-{number})")
    text = text.replace(INK, "var(--soft)").replace(FAINT, "var(--line)")
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)


def short(name: str) -> str:
    """Return a name as it may stand in a drawing."""
    line = " ".join(name.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def legend(figure: Figure, shown: dict[str, Style]) -> None:
    """Put the systems' names above everything.

    Args:
        figure: The figure.
        shown: Their styles.
    """
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linestyle="none", label=short(name))
        for name, style in shown.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(4, len(handles)))
