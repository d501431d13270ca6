"""Best-fit packing: whole pieces into rows of one length, with as little padding as possible and nothing cropped.

Ding et al. 2024, "Fewer Truncations Improve Language Modeling" (arXiv 2404.10830): documents longer than a row are cut into rows and a remainder;
remainders and short documents are placed by best-fit decreasing (each into the fullest row that still has room). Sizes are integers up to the row
length, so pieces of equal size are placed together: a million documents take less than a second.
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
            else:
                free = capacity
                bins = np.arange(n_bins, n_bins - (-len(pieces) // (capacity // size)))
                n_bins += len(bins)
            each = free // size  # a bin that got a piece and has room for another is now the fullest that fits: it is filled before the next
            placed, pieces = pieces[: each * len(bins)], pieces[each * len(bins) :]
            bin_of[placed] = bins[np.arange(len(placed)) // each]
            filled, rest = divmod(len(placed), each)
            for some, left in ((bins[:filled], free - each * size), (bins[filled : filled + 1], free - rest * size), (bins[filled + 1 :], free)):
                if len(some) and left:
                    room[left].append(some)
            for changed in {free, free - each * size, free - rest * size} - {0}:
                occupied = occupied | 1 << changed if room[changed] else occupied & ~(1 << changed)
    return bin_of, n_bins
