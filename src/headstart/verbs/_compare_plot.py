"""comparison.svg: the metric against FLOPs, against wall time, and against the number of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headstart.core.figures import COLOURS, DASHED, MUTED, plain_ticks, svg
from headstart.core.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(info: Mapping[str, Any]) -> bytes:
    """The SVG of a comparison.json.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    most = max((point["labels"] or 0 for arm in info["arms"] for point in arm["points"]), default=0)
    curve = len({point["labels"] for arm in info["arms"] for point in arm["points"] if point["final"]}) > 1
    panels = [("flops", "pre-training FLOPs (counted)"), ("wall_s", "pre-training seconds"), *([("labels", "labelled records")] if curve else [])]

    def paint(figure: Figure) -> None:
        columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (name, label) in zip(columns, panels, strict=True):
            for number, arm in enumerate(info["arms"]):
                points = [point for point in arm["points"] if (point["final"] if name == "labels" else (point["labels"] or 0) == most)]
                _series(axes, arm, points, name, COLOURS[number % len(COLOURS)])
            axes.set_xlabel(label)
            axes.grid()
            if any(point[name] for arm in info["arms"] for point in arm["points"]):
                axes.set_xscale("log")
                plain_ticks(axes.xaxis)
        columns[0].set_ylabel(info["metric"] + (f" with {most:,} labels" if most else ""))
        handles, names = columns[-1].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 4), frameon=False)

    return svg(paint, (4.6 * len(panels), 4.4), "The plot of a comparison", title=f"{info['metric']} at equal compute")


def _series(axes: Axes, arm: Mapping[str, Any], points: list[Mapping[str, Any]], name: str, colour: str) -> None:
    """One arm: mean with interval at each point; a random start, which costs nothing, as a level with its band."""
    label = printable(arm["arm"], one_line=True)
    if arm["kind"] == "random" and name != "labels":
        for point in points:
            axes.axhline(point["mean"], color=MUTED, linestyle=DASHED, linewidth=1.5, label=label)
            if point["ci95"] is not None:
                axes.axhspan(*point["ci95"], color=MUTED, alpha=0.12, linewidth=0)
        return
    shown = sorted((point for point in points if point[name] is not None), key=lambda point: point[name])
    x, y = [point[name] for point in shown], [point["mean"] for point in shown]
    ends = [point["ci95"] or [point["mean"]] * 2 for point in shown]
    errors = [[mean - low for mean, (low, _) in zip(y, ends, strict=True)], [high - mean for mean, (_, high) in zip(y, ends, strict=True)]]
    colour, line = (MUTED, DASHED) if arm["kind"] == "random" else (colour, "-")
    axes.errorbar(x, y, yerr=errors, color=colour, linestyle=line, marker="o", markersize=5, capsize=3, linewidth=1.8, label=label)
