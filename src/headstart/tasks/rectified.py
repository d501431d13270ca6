"""Is a stereo pair rectified? Rows of the two views must show the same rows of the scene: otherwise no disparity is right."""

from __future__ import annotations

import numpy as np

from headstart.tasks.dense_data import DenseData

LARGEST_SHIFT = 8
"""Rows that the views are looked for apart."""
PAIRS = 20
"""Pairs that are looked at."""


def vertical_shift(left: np.ndarray, right: np.ndarray) -> int:
    """By how many rows the right view lies lower, from the mean grey of each row: that which correlates best. Views [channels, height, width]."""
    profiles = [np.diff(view.astype(np.float64).mean((0, 2))) for view in (left, right)]
    reach = min(LARGEST_SHIFT, len(profiles[0]) // 4)
    scores = {}
    for shift in range(-reach, reach + 1):
        ours = profiles[0][max(0, -shift) : len(profiles[0]) - max(0, shift)]
        theirs = profiles[1][max(0, shift) : len(profiles[1]) - max(0, -shift)]
        spread = ours.std() * theirs.std()
        scores[shift] = float(((ours - ours.mean()) * (theirs - theirs.mean())).mean() / spread) if spread > 0 else 0.0
    return max(scores, key=lambda shift: (scores[shift], -abs(shift)))


def unrectified(data: DenseData) -> str | None:
    """A sentence where most of the first pairs are two or more rows apart; None where they are not."""
    shifts = [vertical_shift(*data[number].views) for number in range(min(PAIRS, len(data)))]
    far = [shift for shift in shifts if abs(shift) >= 2]
    if 2 * len(far) <= len(shifts):
        return None
    return (
        f"In {len(far)} of {len(shifts)} pairs the right view seems to lie {int(np.median(far)):+d} rows lower: stereo needs rectified views: in them"
        " the same point is in the same row."
    )
