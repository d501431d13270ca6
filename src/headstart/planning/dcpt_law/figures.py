"""domain.svg and general.svg: loss against the share of its own corpus, a panel a size, a colour a token count. Both must fall to the right: what
rises was plotted against the share of the other corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core.figures import COLOURS, INK, MUTED, svg
from headstart.core.words import counted
from headstart.planning.dcpt_law.fitted import Fitted, used
from headstart.planning.dcpt_law.forms import Array, Cells
from headstart.planning.dcpt_law.points import LossTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS, MOST_LINES = 4, 5
NEAR_ZERO = 0.005  # lines begin here: at r = 0 the law may jump


def draw(one: Fitted, table: LossTable, held_out: LossTable | None = None) -> bytes:
    """The SVG: lines of the law, dots measured, hollow ones left out of the fit, stars held out.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    cells = table.cells(one.which)
    sizes, counts = spread(cells.n, MOST_PANELS), spread(cells.d, MOST_LINES)
    colour = dict(zip(counts.tolist(), COLOURS, strict=False))

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
        for axes, n in zip(panels, sizes, strict=True):
            _panel(axes, one, n, colour, table, held_out)
            axes.set_title(f"N = {counted(n * one.unit_n)}", fontsize=12)
            axes.set_xlabel(f"share of {one.which} text, r_{one.which[0]}")
            axes.grid()
        panels[0].set_ylabel(f"{one.which} loss (nats a token)")
        labels = {colour[d]: f"D = {counted(d * one.unit_d)}" for d in counts.tolist()}
        handles = _handles(labels, not used(table, one.which).all(), held_out is not None)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False)

    return svg(paint, (1.2 + 3.6 * len(sizes), 4.4), "The figure of a law", title=f"{one.which} loss against the share of {one.which} text")


def _panel(axes: Axes, one: Fitted, n: float, colour: dict[float, str], table: LossTable, held_out: LossTable | None) -> None:
    """The networks of one size."""
    cells, losses, inside = table.cells(one.which), table.losses(one.which), used(table, one.which)
    ratios = np.linspace(NEAR_ZERO, 1, 200)
    for d, of_count in colour.items():
        at = (cells.n == n) & (cells.d == d)
        if not at.any():
            continue
        axes.plot(ratios, one.law.predict(Cells.of(n, d, ratios)), color=of_count, linewidth=1.6)
        axes.scatter(cells.r[at & inside], losses[at & inside], s=18, color=of_count, zorder=3)
        axes.scatter(cells.r[at & ~inside], losses[at & ~inside], s=18, facecolors="white", edgecolors=of_count, zorder=3)
        if held_out is not None:
            new = held_out.cells(one.which)
            at = (new.n == n) & (new.d == d)
            axes.scatter(new.r[at], held_out.losses(one.which)[at], s=70, marker="*", color=of_count, edgecolors=INK, zorder=4)


def _handles(labels: dict[str, str], left_out: bool, held_out: bool) -> list[Any]:
    """Of the legend: a line a colour, and each kind of mark that is there."""
    from matplotlib.lines import Line2D

    marks: list[tuple[str, dict[str, Any]]] = [("measured", {"marker": "o", "markersize": 4})]
    marks += [("not fitted", {"marker": "o", "markersize": 4, "markerfacecolor": "white"})] if left_out else []
    marks += [("held out", {"marker": "*", "markersize": 9})] if held_out else []
    lines: list[Any] = [Line2D([], [], color=colour, label=label) for colour, label in labels.items()]
    return lines + [Line2D([], [], color=MUTED, linestyle="", label=label, **mark) for label, mark in marks]


def spread(values: Array, most: int) -> Array:
    """At most so many of the distinct values, the smallest and the largest among them."""
    distinct = np.unique(values)
    if len(distinct) <= most:
        return distinct
    return distinct[np.unique(np.linspace(0, len(distinct) - 1, most).round().astype(int))]
