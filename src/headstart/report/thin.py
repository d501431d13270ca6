"""Curves as a page can carry them: of each pixel column the lowest and the highest value, so that a spike of one log step stays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def thinned(steps: ArrayLike, values: ArrayLike, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The first, the last, and of each column of the step axis the lowest and the highest value, and one NaN where a column has some.

    Args:
        steps, values: [n]; steps in any order.
        columns: at most 3 * columns + 2 points remain.

    Returns:
        steps int64 [m], strictly increasing (of a step that was logged twice the later value stays), and values float64 [m].
    """
    x, y = np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64)
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    if len(x) > 1:
        newest = np.append(x[1:] != x[:-1], True)
        x, y = x[newest], y[newest]
    if len(x) <= 2 * columns:
        return x, y
    column = ((x - x[0]) * columns // (x[-1] - x[0] + 1)).astype(np.int64)
    keep = np.zeros(len(x), dtype=bool)
    keep[[0, -1]] = True
    for of_kind in (np.isfinite(y), ~np.isfinite(y)):
        index = np.flatnonzero(of_kind)
        index = index[np.lexsort((y[index], column[index]))]  # by column, then by value
        first = np.append(True, column[index][1:] != column[index][:-1])[: len(index)]
        keep[index[first]] = True  # the lowest of each column
        if len(index) and np.isfinite(y[index[0]]):
            keep[index[np.append(first[1:], True)]] = True  # and the highest
    return x[keep], y[keep]


def packed(steps: ArrayLike, values: ArrayLike, columns: int) -> dict[str, list[Any]]:
    """A thinned curve for JSON: steps as differences, values with five significant digits, None for what is no finite number."""
    x, y = thinned(steps, values, columns)
    return {"x": np.diff(x, prepend=0).tolist(), "y": [rounded(value) for value in y.tolist()]}


def rounded(value: float) -> float | int | None:
    """Five significant digits, which is more than a chart can show; whole numbers without a point."""
    if not np.isfinite(value):
        return None
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
