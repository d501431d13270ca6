import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.data.text.packing import best_fit


def plain_best_fit_decreasing(sizes: list[int], capacity: int) -> list[int]:
    """Loads of the bins, by the definition: each piece, largest first, into the fullest bin that still has room."""
    room: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [free for free in room if free >= size]
        if fitting:
            room[room.index(min(fitting))] -= size
        else:
            room.append(capacity - size)
    return sorted(capacity - free for free in room)


@given(st.integers(1, 40).flatmap(lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=120))))
def test_it_is_best_fit_decreasing(case: tuple[int, list[int]]) -> None:
    capacity, sizes = case
    bins, n_bins = best_fit(np.array(sizes, np.int64), capacity)
    loads = np.bincount(bins, sizes, minlength=n_bins)
    assert sorted(loads.tolist()) == plain_best_fit_decreasing(sizes, capacity)


def test_natural_lengths_leave_almost_no_padding() -> None:
    sizes = np.clip(np.random.default_rng(0).lognormal(4, 1, 100_000).astype(np.int64), 1, 512)
    _, n_bins = best_fit(sizes, 512)
    assert 1 - sizes.sum() / (n_bins * 512) < 0.001


def test_pieces_that_do_not_fit_are_refused() -> None:
    for sizes in ([5], [0], [-1]):
        with pytest.raises(ValueError, match=r"1\.\.4"):
            best_fit(np.array(sizes), 4)
