"""The figure of a claim: each arm's metric with a point a seed, its mean and interval; and the differences with theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.claims._committed import compared_words, measures, of_seeds, shown
from headstart.core.figures import ACCENT, DASHED, INK, MUTED, svg
from headstart.tasks.metrics import paired_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOUR_OF_VERDICT = {"reproduced": "#1a7f37", "not reproduced": "#b42318", "inconclusive": MUTED}


def draw(result: Mapping[str, Any]) -> bytes:
    """The SVG of a result; the same result gives the same bytes.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    measured = measures(result)
    of_arms = [  # one row an arm; where comparisons are over different tasks, one for each of those that it is measured on
        (f"{arm['arm']} on {name}" if len(measured) > 1 else arm["arm"], of_arm)
        for name, tasks in measured.items()
        for arm in result["arms"]
        if (of_arm := of_seeds(arm, tasks))
    ]
    rows = len(of_arms), len(result["comparisons"])

    def paint(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, height_ratios=[rows[0] + 0.6, max(rows[1], 1) + 0.6])
        figure.suptitle(f"{result['slug']}, preset {result['preset']}: {result['verdict']}", x=0.01, ha="left", fontsize=14, fontweight="bold")
        _arms(upper, result, of_arms)
        _differences(lower, result)
        figure.supxlabel("Ring: one seed. Upright line: the mean. Bars: 95 % intervals.", x=0.01, ha="left", fontsize=10, color=MUTED)
        for axes in (upper, lower):
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x")

    return svg(paint, (9, 1.9 + 0.45 * (sum(rows) + 1)), "The figure of a claim", title=result["sentence"])


def _arms(axes: Axes, result: Mapping[str, Any], of_arms: Sequence[tuple[str, Sequence[float]]]) -> None:
    """A row an arm, the first on top."""
    for at, (_, of_arm) in enumerate(reversed(of_arms)):
        values = _scale(result) * np.array(of_arm)
        mean, interval = paired_difference(values.tolist(), [0.0] * len(values))
        if interval is not None:
            axes.plot(interval, [at, at], color=ACCENT, linewidth=2, solid_capstyle="round", alpha=0.5)
        axes.scatter(values, [at] * len(values), s=36, facecolors="white", edgecolors=ACCENT, linewidths=1.5, zorder=3)
        axes.plot([mean, mean], [at - 0.25, at + 0.25], color=INK, linewidth=2, zorder=4)
    axes.set_yticks(range(len(of_arms)), [name for name, _ in reversed(of_arms)])
    axes.set_ylim(-0.6, len(of_arms) - 0.4)
    axes.set_xlabel(f"{result['metric']}{' (%)' if result['percent'] else ''}")


def _differences(axes: Axes, result: Mapping[str, Any]) -> None:
    """A row a comparison, the first on top."""
    comparisons, scale = result["comparisons"], _scale(result)
    for at, comparison in enumerate(reversed(comparisons)):
        colour = COLOUR_OF_VERDICT[comparison["verdict"]]
        if comparison["ci95"] is not None:
            axes.plot(scale * np.array(comparison["ci95"]), [at, at], color=colour, linewidth=3, solid_capstyle="round")
        axes.scatter([scale * comparison["difference"]], [at], s=50, color=colour, zorder=3)
        label = f"{shown(result, comparison['difference'], signed=True)}  {comparison['verdict']}"
        axes.annotate(label, (scale * comparison["difference"], at), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=11)
    axes.axvline(0, color=MUTED, linewidth=1, linestyle=DASHED)
    axes.set_yticks(range(len(comparisons)), [compared_words(result, one, "−") for one in reversed(comparisons)])
    axes.set_ylim(-0.6, max(len(comparisons), 1) - 0.2)
    axes.set_xlabel(f"difference paired by seed{' (points)' if result['percent'] else ''}")


def _scale(result: Mapping[str, Any]) -> int:
    return 100 if result["percent"] else 1
