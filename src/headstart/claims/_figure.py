"""The figure of a claim: each arm's metric with a point a seed, its mean and interval; and the differences with theirs. SVG, text as text."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from headstart.claims._committed import compared_words, measures, of_seeds, shown
from headstart.core.errors import MissingDependency
from headstart.tasks.metrics import paired_difference

INK, MUTED, ACCENT = "#1b1f24", "#57606a", "#0b5cad"
COLOUR_OF_VERDICT = {"reproduced": "#1a7f37", "not reproduced": "#b42318", "inconclusive": "#57606a"}


def draw(result: Mapping[str, Any]) -> bytes:
    """The SVG of a result; the same result gives the same bytes.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency("matplotlib", "report", "The figure of a claim") from None
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "headstart",
        "font.family": "sans-serif",
        "font.sans-serif": ["system-ui", "Segoe UI", "Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
        "font.size": 12,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    scale = 100 if result["percent"] else 1
    comparisons, measured = result["comparisons"], measures(result)
    of_arms = [  # one row an arm; where comparisons are over different tasks, one for each of those that it is measured on
        (f"{arm['arm']} on {name}" if len(measured) > 1 else arm["arm"], of_arm)
        for name, tasks in measured.items()
        for arm in result["arms"]
        if (of_arm := of_seeds(arm, tasks))
    ]
    with matplotlib.rc_context(style):
        height = 1.9 + 0.45 * (len(of_arms) + len(comparisons) + 1)
        figure = Figure(figsize=(9, height), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        upper, lower = figure.subplots(2, 1, height_ratios=[len(of_arms) + 0.6, max(len(comparisons), 1) + 0.6])
        unit = " (%)" if result["percent"] else ""
        figure.suptitle(f"{result['slug']}, preset {result['preset']}: {result['verdict']}", x=0.01, ha="left", fontsize=14, fontweight="bold")
        for at, (_, of_arm) in enumerate(reversed(of_arms)):
            values = scale * np.array(of_arm)
            mean, interval = paired_difference(values.tolist(), [0.0] * len(values))
            if interval is not None:
                upper.plot(interval, [at, at], color=ACCENT, linewidth=2, solid_capstyle="round", alpha=0.5)
            upper.scatter(values, [at] * len(values), s=36, facecolors="white", edgecolors=ACCENT, linewidths=1.5, zorder=3)
            upper.plot([mean, mean], [at - 0.25, at + 0.25], color=INK, linewidth=2, zorder=4)
        upper.set_yticks(range(len(of_arms)), [name for name, _ in reversed(of_arms)])
        upper.set_ylim(-0.6, len(of_arms) - 0.4)
        upper.set_xlabel(f"{result['metric']}{unit}")
        for at, comparison in enumerate(reversed(comparisons)):
            colour = COLOUR_OF_VERDICT[comparison["verdict"]]
            if comparison["ci95"] is not None:
                lower.plot(scale * np.array(comparison["ci95"]), [at, at], color=colour, linewidth=3, solid_capstyle="round")
            lower.scatter([scale * comparison["difference"]], [at], s=50, color=colour, zorder=3)
            label = f"{shown(result, comparison['difference'], signed=True)}  {comparison['verdict']}"
            lower.annotate(label, (scale * comparison["difference"], at), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=11)
        lower.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        lower.set_yticks(range(len(comparisons)), [compared_words(result, one, "−") for one in reversed(comparisons)])
        lower.set_ylim(-0.6, max(len(comparisons), 1) - 0.2)
        lower.set_xlabel(f"difference paired by seed{' (points)' if result['percent'] else ''}")
        figure.supxlabel("Ring: one seed. Upright line: the mean. Bars: 95 % intervals.", x=0.01, ha="left", fontsize=10, color=MUTED)
        for axes in (upper, lower):
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color="#d0d7de", linewidth=0.8)
            axes.set_axisbelow(True)
        held = io.BytesIO()
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": "headstart", "Title": result["sentence"]})
    return held.getvalue()
