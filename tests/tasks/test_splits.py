"""Stratified splits and nested subsets: shares, classes on both sides, documents kept whole, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import UsageError
from headstart.tasks.splits import nested_subsets, stratified_splits

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=60)


@given(LABELS, st.floats(0.05, 0.95), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_both_sides_hold_every_class_of_two_records_and_each_record_once(labels: list[int], share: float, seed: int) -> None:
    for train, test in stratified_splits(labels, 3, share, seed):
        assert sorted([*train, *test]) == list(range(len(labels)))
        assert len(train)
        assert len(test)
        kinds = np.array(labels)
        for label in set(labels):
            if labels.count(label) > 1:
                assert label in kinds[train]
                assert label in kinds[test]
            elif len(set(labels)) < len(labels):
                assert label in kinds[train], "a single record is of more use for training"


def test_each_class_has_its_share() -> None:
    labels = ["a"] * 80 + ["b"] * 20
    for train, test in stratified_splits(labels, 4, 0.25, seed=3):
        assert (np.array(labels)[test] == "a").sum() == 20
        assert (np.array(labels)[test] == "b").sum() == 5
        assert len(train) == 75
        assert (np.diff(train) > 0).all()


def test_a_large_share_leaves_a_record_of_each_class_for_training() -> None:
    for train, test in stratified_splits([0, 0, 1, 1, 1], 3, 0.95, seed=0):
        assert len(train) == 2
        assert len(test) == 3


def test_seed_and_number_decide_the_split() -> None:
    labels = np.arange(60) % 3
    first, again, other = (stratified_splits(labels, 2, 0.5, seed) for seed in (1, 1, 2))
    assert all((a[1] == b[1]).all() for a, b in zip(first, again, strict=True))
    assert not (first[0][1] == first[1][1]).all()
    assert not (first[0][1] == other[0][1]).all()
    longer = stratified_splits(labels, 5, 0.5, 1)
    assert all((a[1] == b[1]).all() for a, b in zip(first, longer, strict=False)), "more splits leave the first ones as they were"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=4, max_size=60), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_a_document_is_never_on_both_sides(records: list[tuple[int, int]], seed: int) -> None:
    labels, documents = zip(*records, strict=True)
    if len(set(documents)) < 2:
        with pytest.raises(UsageError):
            stratified_splits(labels, 2, 0.5, seed, groups=documents)
        return
    for train, test in stratified_splits(labels, 2, 0.5, seed, groups=documents):
        assert len(train)
        assert len(test)
        assert not {documents[i] for i in train} & {documents[i] for i in test}
        assert sorted([*train, *test]) == list(range(len(labels)))


def test_with_documents_the_shares_hold_nearly_and_every_class_is_on_both_sides() -> None:
    labels = np.repeat([0, 1, 2], [200, 100, 12])
    documents = np.arange(312) // 4  # documents of one class
    for train, test in stratified_splits(labels, 5, 0.25, seed=0, groups=documents):
        assert np.bincount(labels[test], minlength=3) == pytest.approx([50, 25, 3], abs=4)
        assert set(labels[train]) == set(labels[test]) == {0, 1, 2}


def test_a_rare_class_of_two_large_documents_is_still_on_both_sides() -> None:
    labels = np.repeat([0, 1], [200, 20])
    documents = np.concatenate([np.arange(200) // 2, np.repeat([100, 101], 10)])
    for train, test in stratified_splits(labels, 5, 0.1, seed=0, groups=documents):
        assert set(labels[train]) == set(labels[test]) == {0, 1}


@given(LABELS, st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_subsets_are_nested_and_hold_every_class_in_proportion(labels: list[int], seed: int) -> None:
    n, kinds = len(labels), np.array(labels)
    counts = sorted({len(set(labels)), n // 2, n} & set(range(len(set(labels)), n + 1)))
    found = nested_subsets(labels, counts, seed)
    before: set[int] = set()
    for count in counts:
        chosen = found[count]
        assert len(chosen) == len(set(chosen.tolist())) == count
        assert before <= set(chosen.tolist())
        assert set(kinds[chosen]) == set(labels)
        before = set(chosen.tolist())


def test_a_subset_has_the_proportions_of_the_whole() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    for count, chosen in nested_subsets(labels, [20, 50, 200], seed=5).items():
        assert np.bincount(labels[chosen]) == pytest.approx(np.array([0.6, 0.3, 0.1]) * count, abs=1.5)


def test_another_seed_draws_other_records() -> None:
    labels = np.arange(100) % 2
    first, again, other = (nested_subsets(labels, [10], seed)[10] for seed in (0, 0, 1))
    assert (first == again).all()
    assert not (first == other).all()


def test_subsets_of_documents_are_whole_and_nested() -> None:
    labels = np.arange(90) % 3
    documents = np.arange(90) // 5
    found = nested_subsets(labels, [3, 20, 44, 90], seed=1, groups=documents)
    assert [len(found[count]) for count in (3, 20, 44, 90)] == [5, 20, 40, 90]
    assert set(found[3]) < set(found[20]) < set(found[44]) < set(found[90])
    for chosen in found.values():
        assert all((documents[chosen] == document).sum() == 5 for document in set(documents[chosen]))


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UsageError, match="from 3 to 9"):
        nested_subsets([0, 1, 2] * 3, [2], seed=0)
    with pytest.raises(UsageError, match="from 3 to 9"):
        nested_subsets([0, 1, 2] * 3, [10], seed=0)
    with pytest.raises(UsageError, match="cannot be divided"):
        stratified_splits([0], 1, 0.5, seed=0)
    for splits, share in ((0, 0.5), (1, 0.0), (1, 1.0)):
        with pytest.raises(UsageError, match="cannot be made"):
            stratified_splits([0, 0], splits, share, seed=0)
