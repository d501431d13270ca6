"""Small pictures that the page holds as SVG: an interval beside its zero line, the seeds of arms in a row. Colours come from the page's style.

Each is `aria-hidden`: the figures stand as text beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT, PAD = 240.0, 24.0, 8.0


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high` over the width of a small picture."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        """Pixels; what lies outside stays at the edge."""
        at = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1.0)
        return round(PAD + at * (WIDTH - 2 * PAD), 1)


def scale_around_zero(values: Sequence[float]) -> Scale:
    """An axis that holds the values and zero, with a little room."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    room = 0.06 * ((high - low) or 1.0)
    return Scale(low - room, high + room)


def scale_of(values: Sequence[float]) -> Scale:
    """An axis that holds the values, with a little room."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    room = 0.08 * ((max(finite) - min(finite)) or abs(finite[0]) or 1.0)
    return Scale(min(finite) - room, max(finite) + room)


def interval(difference: float, ci95: tuple[float, float] | None, scale: Scale, tone: str) -> Markup:
    """A difference with its 95 % interval, and the line of no difference.

    Args:
        tone: good, bad or open: a class of the page's style.
    """
    middle = HEIGHT / 2
    parts = [f'<line class="zero" x1="{scale(0.0)}" x2="{scale(0.0)}" y1="1" y2="{HEIGHT - 1}"/>']
    if ci95 is not None:
        low, high = scale(ci95[0]), scale(ci95[1])
        parts.append(f'<line class="whisker" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>')
        parts += [f'<line class="whisker" x1="{x}" x2="{x}" y1="{middle - 4}" y2="{middle + 4}"/>' for x in (low, high)]
    parts.append(f'<circle class="point" cx="{scale(difference)}" cy="{middle}" r="4.5"/>')
    return _svg("interval " + tone, WIDTH, HEIGHT, parts)


def seeds(values: Sequence[float], mean: float, scale: Scale, leading: bool) -> Markup:
    """One arm: a dot a seed, and their mean as a bar across.

    Args:
        leading: the arm that the page wants seen first.
    """
    middle = HEIGHT / 2
    parts = [f'<line class="track" x1="{PAD}" x2="{WIDTH - PAD}" y1="{middle}" y2="{middle}"/>']
    parts += [f'<circle class="seed" cx="{scale(value)}" cy="{middle}" r="3.5"/>' for value in values if math.isfinite(value)]
    if math.isfinite(mean):
        parts.append(f'<line class="mean" x1="{scale(mean)}" x2="{scale(mean)}" y1="3" y2="{HEIGHT - 3}"/>')
    return _svg("seeds leading" if leading else "seeds", WIDTH, HEIGHT, parts)


def _svg(name: str, width: float, height: float, parts: Sequence[str]) -> Markup:
    """Only numbers and names of ours are in `parts`."""
    inner = "".join(parts)
    return Markup(f'<svg class="{name}" viewBox="0 0 {width:g} {height:g}" aria-hidden="true" focusable="false">{inner}</svg>')
