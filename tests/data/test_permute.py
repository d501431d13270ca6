import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.data.permute import combine, permute


@given(n=st.integers(1, 3000), key=st.integers(0, 2**63))
def test_every_number_is_hit_once(n: int, key: int) -> None:
    assert sorted(permute(np.arange(n), n, combine(key)).tolist()) == list(range(n))


def test_positions_may_have_keys_of_their_own() -> None:
    keys = combine(0, np.repeat([5, 6], 100))
    both = permute(np.tile(np.arange(100), 2), 100, keys)
    assert (both[:100] == permute(np.arange(100), 100, combine(0, 5))).all()
    assert (both[100:] == permute(np.arange(100), 100, combine(0, 6))).all()
    assert (both[:100] != both[100:]).mean() > 0.9


def test_large_domains_stay_inside_and_do_not_collide() -> None:
    n = 2**40 + 12345
    images = permute(np.arange(200_000), n, combine(3))
    assert 0 <= images.min() < images.max() < n
    assert len(np.unique(images)) == 200_000
    assert abs(images.mean() / n - 0.5) < 0.005  # standard error 0.00065


@pytest.mark.parametrize("n", [7, 16, 100])
def test_every_position_takes_every_value_equally_often(n: int) -> None:
    """Chi-square over 20,000 keys: n^2 cells, so (n - 1)^2 degrees of freedom; 5 standard deviations."""
    keys = 20_000
    images = permute(np.tile(np.arange(n), keys), n, combine(1, np.repeat(np.arange(keys), n))).reshape(keys, n)
    counts = np.stack([np.bincount(images[:, position], minlength=n) for position in range(n)])
    chi2 = ((counts - keys / n) ** 2 / (keys / n)).sum()
    freedom = (n - 1) ** 2
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


def test_neighbours_do_not_stay_neighbours() -> None:
    """A shuffle of 10,000 has one pair of neighbours that stay in order, on average."""
    images = permute(np.arange(10_000), 10_000, combine(9))
    assert (np.diff(images) == 1).sum() < 8
