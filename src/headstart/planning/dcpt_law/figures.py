"""domain.svg and general.svg: loss against the share of its own corpus, a panel a size, a colour a token count. Both must fall to the right: what
rises was plotted against the share of the other corpus."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from headstart.core.errors import MissingDependency
from headstart.core.words import counted
from headstart.planning.dcpt_law.fitted import Fitted, used
from headstart.planning.dcpt_law.forms import Array, Cells
from headstart.planning.dcpt_law.points import LossTable

INK, MUTED = "#1b1f24", "#57606a"
COLOURS = ("#0b5cad", "#c2410c", "#15803d", "#7e22ce", "#a16207")
MOST_PANELS = 4
NEAR_ZERO = 0.005  # lines begin here: at r = 0 the law may jump


def draw(one: Fitted, table: LossTable, held_out: LossTable | None = None) -> bytes:
    """The SVG: lines of the law, dots measured, hollow ones left out of the fit, stars held out.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError:
        raise MissingDependency("matplotlib", "report", "The figure of a law") from None
    style: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "headstart", "font.size": 11, "font.family": "sans-serif", "text.color": INK,
        "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    cells, losses, inside = table.cells(one.which), table.losses(one.which), used(table, one.which)
    sizes, counts = spread(cells.n, MOST_PANELS), spread(cells.d, len(COLOURS))
    colour = dict(zip(counts.tolist(), COLOURS, strict=False))
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(1.2 + 3.6 * len(sizes), 4.4), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        axes = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
        ratios = np.linspace(NEAR_ZERO, 1, 200)
        for axis, n in zip(axes, sizes, strict=True):
            for d in counts:
                at = (cells.n == n) & (cells.d == d)
                if not at.any():
                    continue
                axis.plot(ratios, one.law.predict(Cells.of(n, d, ratios)), color=colour[float(d)], linewidth=1.6)
                axis.scatter(cells.r[at & inside], losses[at & inside], s=18, color=colour[float(d)], zorder=3)
                axis.scatter(cells.r[at & ~inside], losses[at & ~inside], s=18, facecolors="white", edgecolors=colour[float(d)], zorder=3)
                if held_out is not None:
                    new = held_out.cells(one.which)
                    at = (new.n == n) & (new.d == d)
                    axis.scatter(new.r[at], held_out.losses(one.which)[at], s=70, marker="*", color=colour[float(d)], edgecolors=INK, zorder=4)
            axis.set_title(f"N = {counted(n * one.unit_n)}", fontsize=11)
            axis.set_xlabel(f"share of {one.which} text, r_{one.which[0]}")
            axis.grid(color="#d8dee4", linewidth=0.6)
        axes[0].set_ylabel(f"{one.which} loss (nats a token)")
        handles: list[Any] = [Line2D([], [], color=colour[float(d)], label=f"D = {counted(d * one.unit_d)}") for d in counts]
        handles.append(Line2D([], [], color=MUTED, marker="o", linestyle="", markersize=4, label="measured"))
        if not inside.all():
            handles.append(Line2D([], [], color=MUTED, marker="o", linestyle="", markersize=4, markerfacecolor="white", label="not fitted"))
        if held_out is not None:
            handles.append(Line2D([], [], color=MUTED, marker="*", linestyle="", markersize=9, label="held out"))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def spread(values: Array, most: int) -> Array:
    """At most so many of the distinct values, the smallest and the largest among them."""
    distinct = np.unique(values)
    if len(distinct) <= most:
        return distinct
    return distinct[np.unique(np.linspace(0, len(distinct) - 1, most).round().astype(int))]
