"""How labelled records are divided: stratified splits and nested subsets. Every draw is decided by (seed, number of the split), on numpy alone.

Records of one document resemble each other: with `groups` given they stay on one side, and the score is not that of texts already half seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.core.errors import UsageError


def stratified_splits(
    labels: Sequence[Any] | np.ndarray, n_splits: int, test_share: float, seed: int, groups: Sequence[Any] | np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Repeated random splits (not folds: any number of them, each with the same shares).

    Args:
        labels: [n], the class of each record; any values that sort.
        test_share: of each class, rounded, but at least one record and not the last one; a class of one record stays in the training part.
        groups: [n], the document of each record. A group lies on one side whole; shares and classes on both sides hold as far as that allows.

    Returns:
        (train, test) index arrays, int64, ascending, for each split.

    Raises:
        UsageError: no split, a share outside 0 to 1, or nothing to divide.
    """
    classes = _codes(labels)
    if n_splits < 1 or not 0.0 < test_share < 1.0:
        raise UsageError(f"{n_splits} splits with a test share of {test_share:g} cannot be made.", "Give at least one, and a share between 0 and 1.")
    units = np.arange(len(classes)) if groups is None else _codes(groups)
    if len(units) != len(classes) or len(np.unique(units)) < 2:
        what = f"{len(classes)} labels in {len(np.unique(units))} groups cannot be divided into two parts."
        raise UsageError(what, "Give at least two records, in two documents, and one group for each record.")
    found = []
    for number in range(n_splits):
        random = np.random.default_rng([seed, number])
        in_test = _draw(classes, test_share, random) if groups is None else _draw_groups(classes, units, test_share, random)
        found.append((np.flatnonzero(~in_test), np.flatnonzero(in_test)))
    return found


def nested_subsets(
    labels: Sequence[Any] | np.ndarray, counts: Sequence[int], seed: int, groups: Sequence[Any] | np.ndarray | None = None
) -> dict[int, np.ndarray]:
    """For each count that many records, each smaller subset inside each larger one, classes in the proportions of the whole (within one record) and
    every class in every subset.

    Args:
        labels: [n], the class of each record.
        groups: [n], the document of each record. Documents are then taken whole: a subset holds at most its count (but one document at least), and a
            small one may lack a class.

    Returns:
        count -> index array, int64, ascending.

    Raises:
        UsageError: a count below the number of classes or above that of the records.
    """
    classes = _codes(labels)
    n_classes = len(np.unique(classes))
    if wrong := [count for count in counts if not n_classes <= count <= len(classes)]:
        what = f"A subset of {wrong[0]} cannot be drawn from {len(classes)} records of {n_classes} classes with each class in it."
        raise UsageError(what, f"Give counts from {n_classes} to {len(classes)}.")
    rank = _stratified_rank(classes, np.random.default_rng([seed, 0]))
    if groups is None:
        order = np.argsort(rank, kind="stable")
        return {count: np.sort(order[:count]) for count in counts}
    units = _codes(groups)
    first = np.full(len(np.unique(units)), np.inf)
    np.minimum.at(first, units, rank)  # a document comes when its first record would
    by_unit = np.lexsort((rank, first[units]))
    sizes = np.bincount(units)[np.argsort(first, kind="stable")]
    ends = np.cumsum(sizes)  # how many records the first k documents have
    return {count: np.sort(by_unit[: ends[max(int(np.searchsorted(ends, count, side="right")) - 1, 0)]]) for count in counts}


def _codes(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """The values as 0, 1, ... in their sorted order."""
    return np.unique(np.asarray(values), return_inverse=True)[1].reshape(-1)


def _draw(classes: np.ndarray, test_share: float, random: np.random.Generator) -> np.ndarray:
    """bool [n], true for test records."""
    in_test = np.zeros(len(classes), dtype=bool)
    for label in np.unique(classes):
        members = random.permutation(np.flatnonzero(classes == label))
        if len(members) > 1:
            in_test[members[: min(max(round(test_share * len(members)), 1), len(members) - 1)]] = True
    if not in_test.any():  # every class has one record
        in_test[random.integers(len(classes))] = True
    return in_test


def _draw_groups(classes: np.ndarray, units: np.ndarray, test_share: float, random: np.random.Generator) -> np.ndarray:
    """As `_draw`, whole groups. Each group, the large ones first, goes where it brings the classes of the test part nearer to their shares; then
    classes that one side lacks are given to it, if the other keeps some."""
    counts = np.zeros((units.max() + 1, classes.max() + 1), dtype=np.int64)  # [groups, classes]
    np.add.at(counts, (units, classes), 1)
    target = test_share * counts.sum(0)
    shuffled = random.permutation(len(counts))
    order = shuffled[np.argsort(-counts[shuffled].sum(1), kind="stable")]
    chosen = np.zeros(len(counts), dtype=bool)
    have = np.zeros(counts.shape[1])
    for group in order:
        if np.square(have + counts[group] - target).sum() < np.square(have - target).sum():
            chosen[group] = True
            have += counts[group]
    for label in range(counts.shape[1]):
        for lacking in (True, False):  # the test side, then the training side
            holders = [group for group in order[::-1] if counts[group, label]]
            if len(holders) < 2 or any(chosen[group] == lacking for group in holders):
                continue
            harmless = [group for group in holders if _can_leave(group, chosen != lacking, counts)]
            chosen[(harmless or holders)[0]] = lacking
    if chosen.all() or not chosen.any():
        chosen[order[-1]] = not chosen[order[-1]]
    return chosen[units]


def _can_leave(group: int, side: np.ndarray, counts: np.ndarray) -> bool:
    """Whether the side (bool [groups]) keeps each class of the group when it goes."""
    rest = side & (np.arange(len(side)) != group)
    return bool((counts[rest].any(0) | (counts[group] == 0)).all())


def _stratified_rank(classes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """float [n]: in ascending order of it every prefix has each class in proportion, one record of each class before all others."""
    rank = np.empty(len(classes))
    for label in np.unique(classes):
        members = random.permutation(np.flatnonzero(classes == label))
        rank[members] = (np.arange(len(members)) + random.random()) / len(members)
        rank[members[0]] = random.random() - 1.0
    return rank
