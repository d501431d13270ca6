"""Figures as SVG, all in one style: text as text, on white, and the same bytes for the same values (no clock, no chance in names)."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headstart.core.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, ACCENT, GRID = "#1b1f24", "#57606a", "#0b5cad", "#d0d7de"
COLOURS = (ACCENT, "#c2410c", "#15803d", "#7e22ce", "#a16207", "#be123c", "#0e7490", "#4d7c0f")
"""Of the lines of a figure, in their order; all dark enough for white."""
DASHED: Any = (0, (4, 3))
"""The linestyle of what others are compared with: no difference, a random start."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "headstart",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "Segoe UI", "Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 12,
    "text.color": INK,
    "text.parse_math": False,  # names may hold a $
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
}


def svg(paint: Callable[[Figure], None], size: tuple[float, float], what: str, title: str) -> bytes:
    """What `paint` draws on an empty figure.

    Args:
        paint: gets the figure; its axes have the style already.
        size: width and height in inches.
        what: the figure in words, for the message: "The plot of a comparison".
        title: for those who read the file with a screen reader; not drawn.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency("matplotlib", "report", what) from None
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        paint(figure)
        held = io.BytesIO()
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": "headstart", "Title": title})
    return held.getvalue()


def plain_ticks(axis: Any) -> None:
    """Ticks of a logarithmic axis (`axes.xaxis`) at 1, 2 and 5, as plain numbers: matplotlib's own are formulas, which are not read here."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axis.set_major_formatter(FuncFormatter(_tick))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float, position: int) -> str:
    """2e9, 50, 1,000."""
    return f"{value:.0e}".replace("e+0", "e").replace("e+", "e") if value >= 1e5 else f"{value:,g}"
