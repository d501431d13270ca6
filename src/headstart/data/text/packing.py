"""Best-fit packing: whole pieces into rows of one length, with as little padding as possible and nothing cropped.

Ding et al. 2024, "Fewer Truncations Improve Language Modeling" (arXiv 2404.10830): documents longer than a row are cut into rows and a remainder;
remainders and short documents are placed by best-fit decreasing (each into the fullest row that still has room). Sizes are integers up to the row
length, so pieces of equal size are placed together and the cost is about n + (distinct sizes)^2, not n log n: a million documents take about a
second.
"""

from __future__ import annotations

import numpy as np


def best_fit(sizes: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """Place pieces into as few bins as best-fit decreasing finds.

    Args:
        sizes: int64 [n], each 1..capacity.
        capacity: size of a bin.

    Returns:
        The bin of each piece, int64 [n], and the number of bins. Pieces of equal size go in their order.
    """
    if len(sizes) == 0:
        return np.empty(0, np.int64), 0
    if not 1 <= sizes.min() <= sizes.max() <= capacity:
        raise ValueError(f"sizes must lie in 1..{capacity}")
    bin_of = np.empty(len(sizes), np.int64)
    order = np.argsort(-sizes, kind="stable")
    starts = np.flatnonzero(np.diff(sizes[order], prepend=-1))
    n_bins = 0
    room: list[list[np.ndarray]] = [[] for _ in range(capacity + 1)]  # room[r]: bins with r free places
    occupied = 0  # bit r is set when room[r] has bins: finds the tightest fit without a scan
    for start, pieces in zip(starts, np.split(order, starts[1:]), strict=True):
        size = int(sizes[order[start]])
        while len(pieces):
            if fitting := occupied >> size:
                free = size + (fitting & -fitting).bit_length() - 1
                bins = room[free].pop()
                if not room[free]:
                    occupied &= ~(1 << free)
                if len(bins) > len(pieces):
                    room[free].append(bins[len(pieces) :])
                    occupied |= 1 << free
                    bins = bins[: len(pieces)]
            else:
                free = capacity
                bins = np.arange(n_bins, n_bins - (-len(pieces) // (capacity // size)))
                n_bins += len(bins)
            bin_of[pieces[: len(bins)]] = bins
            pieces = pieces[len(bins) :]
            if free > size:
                room[free - size].append(bins)
                occupied |= 1 << (free - size)
    return bin_of, n_bins
