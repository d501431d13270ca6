"""What an image looks like: 16 x 16 greys, less their mean. Images of nearly equal looks are one image, stored twice.

Compressed again at quality 40 to 90, enlarged, or a fifth darker, looks agree to a cosine of .985 to 1 (95 % of photographs, chest X-rays and
digits); those of different images reach .982 where two crops overlap nearly wholly, and .968 otherwise. Perceptual hashes of 63 to 255 bits do not
tell X-rays or digits from each other where they tell photographs. Images cut otherwise or turned have other looks.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 16
NEAR = 0.985
"""Cosine from which on two looks are one."""
_AT_ONCE = 2**24  # cosines at once: 64 MB


def look_of(pixels: np.ndarray) -> np.ndarray:
    """int8 [256] of an image [channels, height, width]; zeros where it is of one grey, which looks like nothing."""
    grey = Image.fromarray(pixels.mean(0, dtype=np.float32))
    small = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64).ravel()
    small -= small.mean()
    reach = np.abs(small).max()
    return np.rint(small * (127 / reach) if reach > 1e-6 * abs(pixels).max() else 0 * small).astype(np.int8)


def near_copies(looks: np.ndarray, held_out: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """bool [n]: training images that nearly equal a held-out one.

    Args:
        looks: int8 [n, 256].
        held_out, dropped: bool [n]; images that are dropped already are not looked at.
    """
    result = np.zeros(len(looks), bool)
    training = np.flatnonzero(~held_out & ~dropped)
    result[training] = stand_near(looks[training], looks[held_out & ~dropped])
    return result


def stand_near(looks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool [n]: which of some images nearly equal one of the others. A product of all with all: 100,000 with 5,000 are 256 GFLOP.

    Args:
        looks: int8 [n, 256]; others: int8 [m, 256].
    """
    found = np.zeros(len(looks), bool)
    if not len(others):
        return found
    directions = _directions(others).T
    rows = max(1, _AT_ONCE // len(others))
    for start in range(0, len(looks), rows):
        found[start : start + rows] = (_directions(looks[start : start + rows]) @ directions).max(1) >= NEAR
    return found


def _directions(looks: np.ndarray) -> np.ndarray:
    """float32 [n, 256] of length 1, or 0."""
    values = looks.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1)
