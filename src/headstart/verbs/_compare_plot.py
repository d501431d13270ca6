"""comparison.svg: the metric against FLOPs, against wall time, and against the number of labels. SVG with text as text; no clock in it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from headstart.core.errors import MissingDependency
from headstart.core.terminal import printable

INK, MUTED = "#1b1f24", "#57606a"
COLOURS = ("#0b5cad", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#be123c", "#0e7490", "#4d7c0f")


def draw(info: Mapping[str, Any]) -> bytes:
    """The SVG of a comparison.json.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    except ImportError:
        raise MissingDependency("matplotlib", "report", "The plot of a comparison") from None
    style: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "headstart", "font.size": 11, "font.family": "sans-serif", "text.color": INK,
        "axes.labelcolor": INK, "axes.edgecolor": MUTED, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
        "text.parse_math": False,
    }  # fmt: skip
    most = max((point["labels"] or 0 for arm in info["arms"] for point in arm["points"]), default=0)
    curve = len({point["labels"] for arm in info["arms"] for point in arm["points"] if point["final"]}) > 1
    panels = [("flops", "pre-training FLOPs (counted)"), ("wall_s", "pre-training seconds"), *([("labels", "labelled records")] if curve else [])]
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.6 * len(panels), 4.4), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (name, label) in zip(axes, panels, strict=True):
            for number, arm in enumerate(info["arms"]):
                points = [point for point in arm["points"] if (point["final"] if name == "labels" else (point["labels"] or 0) == most)]
                _series(axis, arm, points, name, COLOURS[number % len(COLOURS)])
            axis.set_xlabel(label)
            axis.grid(color="#d8dee4", linewidth=0.6)
            if any(point[name] for arm in info["arms"] for point in arm["points"]):
                axis.set_xscale("log")
                axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
                axis.xaxis.set_major_formatter(FuncFormatter(_tick))
                axis.xaxis.set_minor_formatter(NullFormatter())
        axes[0].set_ylabel(info["metric"] + (f" with {most:,} labels" if most else ""))
        handles, names = axes[-1].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 4), frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _tick(value: float, position: int) -> str:
    """2e9, 50, 1,000: matplotlib's own would be formulas, which are not read here since names may hold a $."""
    return f"{value:.0e}".replace("e+0", "e").replace("e+", "e") if value >= 1e5 else f"{value:,g}"


def _series(axis: Any, arm: Mapping[str, Any], points: list[Mapping[str, Any]], name: str, colour: str) -> None:
    """One arm: mean with interval at each point; a random start, which costs nothing, as a level with its band."""
    label = printable(arm["arm"], one_line=True)
    if arm["kind"] == "random" and name != "labels":
        for point in points:
            axis.axhline(point["mean"], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.5, label=label)
            if point["ci95"] is not None:
                axis.axhspan(*point["ci95"], color=MUTED, alpha=0.12, linewidth=0)
        return
    shown = sorted((point for point in points if point[name] is not None), key=lambda point: point[name])
    x, y = [point[name] for point in shown], [point["mean"] for point in shown]
    ends = [point["ci95"] or [point["mean"]] * 2 for point in shown]
    errors = [[mean - low for mean, (low, _) in zip(y, ends, strict=True)], [high - mean for mean, (_, high) in zip(y, ends, strict=True)]]
    dashed: Any = (0, (4, 3)) if arm["kind"] == "random" else "-"
    colour = MUTED if arm["kind"] == "random" else colour
    axis.errorbar(x, y, yerr=errors, color=colour, linestyle=dashed, marker="o", markersize=5, capsize=3, linewidth=1.8, label=label)
