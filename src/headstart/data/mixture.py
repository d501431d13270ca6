"""Weighted parts in exact proportions over every window, each part in a fresh random order every epoch, without any state.

- Which part a sample comes from follows a fixed pattern of at most 65,536 samples. In every run of consecutive samples, however short and wherever
  it begins, each part has its share to within 2 samples (most often 1). Drawing parts at random would be off by the square root of the window.
- Which row of the part: the part's own count of samples so far gives epoch and position, a keyed permutation (`permute.py`) the row. Every row of a
  part comes once before any comes twice; a part with a large weight simply begins its next epoch earlier (up-sampling). So runs that differ in the
  shares alone read each part in the same order, the one with the larger share further: docs/decisions/0020-named-parts.md.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np

from headstart.core.errors import UsageError
from headstart.data.permute import combine, permute

MAX_PERIOD = 2**16


class Part(Protocol):
    """What can be mixed."""

    def __len__(self) -> int: ...
    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]: ...


class Mixture:
    """A deterministic endless sequence of (part, row).

    Args:
        parts: `Rows` or anything with `__len__` and `batch`; none may be empty.
        weights: one a part, 0 or more; None: each part as large as it is. A part of weight 0 never comes, and the order of the others is as it would
            be with it.
        seed: decides the order of rows.
        by: what the weights count. "rows": samples; "tokens": tokens that are not padding (parts need `n_tokens`); "documents": (parts need
            `n_documents`).

    Attributes:
        shares: Fraction of each part in the samples; the pattern keeps these exactly. They are the wanted shares themselves if those have a common
            denominator up to 65,536, else within 1 / 65,536 of them.

    Raises UsageError for weights that make no sense.
    """

    def __init__(
        self, parts: Sequence[Part], weights: Sequence[float] | None = None, seed: int = 0, by: Literal["tokens", "documents", "rows"] = "tokens"
    ) -> None:
        self.parts = list(parts)
        self.seed = seed
        self.sizes = np.array([len(part) for part in self.parts], np.int64)
        if not self.parts or (self.sizes == 0).any():
            raise UsageError("a mixture needs at least one part, and none may be empty.", "Leave empty stores out.")
        per_row = [Fraction(1) if weights is None else _per_row(part, by) for part in self.parts]
        if weights is not None and (len(weights) != len(self.parts) or not all(0 <= weight < math.inf for weight in weights) or not any(weights)):
            raise UsageError(f"weights {list(weights)} for {len(self.parts)} parts.", "Give one number a part, not below 0 and not all 0.")
        wanted = [Fraction(int(size)) for size in self.sizes] if weights is None else [Fraction(str(weight)) for weight in weights]
        counts = _period_counts([weight / amount for weight, amount in zip(wanted, per_row, strict=True)])
        self.period = sum(counts)
        self.shares = [Fraction(count, self.period) for count in counts]
        self._counts = np.array(counts, np.int64)
        self._part = _even_pattern(counts)  # [period]: the part of each sample of a period
        order = np.argsort(self._part, kind="stable")
        self._rank = np.empty(self.period, np.int64)  # [period]: how many samples of that part come before it in the period
        self._rank[order] = np.arange(self.period) - np.repeat(np.cumsum(self._counts) - self._counts, self._counts)

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Part and row, int64 [k] each, of the samples with these global numbers, int64 [k]."""
        samples = np.asarray(samples, np.int64)
        turn, place = np.divmod(samples, self.period)
        part = self._part[place]
        count = turn * self._counts[part] + self._rank[place]  # samples of this part so far
        epoch, position = np.divmod(count, self.sizes[part])
        row = np.empty(len(samples), np.int64)
        for index in np.unique(part):
            mine = part == index
            epochs = epoch[mine]
            keys = combine(self.seed, int(index), epochs[:1] if (epochs == epochs[0]).all() else epochs)
            row[mine] = permute(position[mine], int(self.sizes[index]), keys)
        return part, row

    def epochs(self, samples: int) -> list[float]:
        """How often each part has been seen after this many samples."""
        return [float(samples * share / int(size)) for share, size in zip(self.shares, self.sizes, strict=True)]


def _per_row(part: Part, by: str) -> Fraction:
    """Tokens or documents in a row, on average."""
    if by == "rows":
        return Fraction(1)
    amount = getattr(part, f"n_{by}", 0)
    if not amount:
        raise UsageError(f"a part does not know its number of {by}.", "Weigh by rows instead.")
    return Fraction(int(amount), len(part))


def _period_counts(weights: list[Fraction]) -> list[int]:
    """Whole numbers in the ratio of `weights` with a sum of at most MAX_PERIOD: exact if that is possible, else rounded (largest remainders), at
    least 1 for each weight above 0."""
    total = sum(weights)
    shares = [weight / total for weight in weights]
    period = 1
    for share in shares:
        period = math.lcm(period, share.denominator) if period <= MAX_PERIOD else period
    if period <= MAX_PERIOD:
        return [int(share * period) for share in shares]
    ideal = [share * MAX_PERIOD for share in shares]
    counts = [max(amount > 0, int(amount)) for amount in ideal]
    by_remainder = sorted(range(len(counts)), key=lambda index: counts[index] - ideal[index])
    for index in by_remainder[: max(0, MAX_PERIOD - sum(counts))]:
        counts[index] += 1
    return counts


def _even_pattern(counts: list[int]) -> np.ndarray:
    """int64 [sum(counts)]: part i occurs counts[i] times, and after n samples floor or ceil(n * share) times, whatever n.

    This is the "proportionate fair" schedule (Baruah et al. 1996; Tijdeman 1980): the k-th turn of a part may not come before floor((k - 1) /
    share) and must come before ceil(k / share); taking the turn with the earliest deadline among those released meets all of them. A window is the
    difference of two such counts.
    """
    period = sum(counts)
    pattern = np.empty(period, np.int64)
    turns = [1] * len(counts)
    waiting = [(0, part) for part, count in enumerate(counts) if count]  # (release, part)
    heapq.heapify(waiting)
    ready: list[tuple[int, int]] = []  # (deadline, part)
    for sample in range(period):
        while waiting and waiting[0][0] <= sample:
            _, part = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-turns[part] * period // counts[part]), part))
        _, part = heapq.heappop(ready)
        pattern[sample] = part
        if turns[part] < counts[part]:
            heapq.heappush(waiting, (turns[part] * period // counts[part], part))
            turns[part] += 1
    return pattern
