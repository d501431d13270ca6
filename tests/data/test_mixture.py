from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import UsageError
from headstart.data.mixture import Mixture, _even_pattern


class Numbers:
    """A part whose row i is the number `base + i`."""

    length = 1

    def __init__(self, n: int, base: int = 0, n_tokens: int = 0, n_documents: int = 0) -> None:
        self.n, self.base, self.n_tokens, self.n_documents = n, base, n_tokens, n_documents

    def __len__(self) -> int:
        return self.n

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"input_ids": (rows + self.base)[:, None]}


weights = st.lists(st.floats(0.001, 100, allow_nan=False), min_size=2, max_size=12)


@pytest.mark.promise("Each source has its exact share of the samples, to within two, in every window of a run, across stops too.")
@settings(max_examples=40, deadline=None)
@given(weights=weights, start=st.integers(0, 300_000), size=st.integers(1, 100_000))
def test_every_window_has_the_shares_to_within_two_samples(weights: list[float], start: int, size: int) -> None:
    mixture = Mixture([Numbers(10)] * len(weights), weights, by="rows")
    parts, _ = mixture.locate(np.arange(start, start + size))
    counts = np.bincount(parts, minlength=len(weights))
    for count, share in zip(counts, mixture.shares, strict=True):
        assert abs(count - share * size) < 2


@settings(max_examples=40, deadline=None)
@given(weights=weights)
def test_shares_are_the_wanted_ones(weights: list[float]) -> None:
    """Exactly, or to within one 65,536th. (A part that deserves less than one sample of the period gets one.)"""
    mixture = Mixture([Numbers(10)] * len(weights), weights, by="rows")
    assert sum(mixture.shares) == 1
    for weight, share in zip(weights, mixture.shares, strict=True):
        assert abs(float(share) - weight / sum(weights)) <= 2**-16 * len(weights)


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.one_of(st.integers(1, 4), st.integers(1, 300)), min_size=2, max_size=40))
def test_every_prefix_of_the_pattern_is_within_one_sample(counts: list[int]) -> None:
    """So every window is within two. All prefixes and all parts, many small parts beside large ones: where a careless order falls behind."""
    pattern = _even_pattern(counts)
    for part, count in enumerate(counts):
        seen = np.cumsum(pattern == part) * len(pattern)
        due = np.arange(1, len(pattern) + 1) * count
        assert (abs(seen - due) < len(pattern)).all()


def test_decimal_weights_are_kept_exactly() -> None:
    mixture = Mixture([Numbers(10)] * 3, [0.7, 0.2, 0.1], by="rows")
    assert mixture.shares == [Fraction(7, 10), Fraction(2, 10), Fraction(1, 10)]


def test_rows_of_a_part_come_once_an_epoch_in_a_new_order() -> None:
    mixture = Mixture([Numbers(50)], seed=4)
    _, rows = mixture.locate(np.arange(150))
    epochs = rows.reshape(3, 50)
    assert (np.sort(epochs, 1) == np.arange(50)).all()
    assert not (epochs[0] == epochs[1]).all()
    assert (mixture.locate(np.arange(50, 100))[1] == epochs[1]).all()  # however it is asked for
    assert (mixture.locate(np.arange(70, 120))[1] == rows[70:120]).all()
    _, other = Mixture([Numbers(50)], seed=5).locate(np.arange(50))
    assert not (epochs[0] == other).all()


def test_up_sampling_repeats_the_small_part_evenly() -> None:
    """10 rows of weight 1 against 1000 of weight 1: the small part is seen 50 times while the large one is seen half."""
    mixture = Mixture([Numbers(10), Numbers(1000)], [1, 1], by="rows")
    parts, rows = mixture.locate(np.arange(1000))
    assert np.bincount(rows[parts == 0], minlength=10).tolist() == [50] * 10
    assert len(np.unique(rows[parts == 1])) == 500
    assert mixture.epochs(1000) == [50.0, 0.5]


def test_without_weights_every_row_of_every_part_comes_once() -> None:
    mixture = Mixture([Numbers(30), Numbers(7), Numbers(100)])
    parts, rows = mixture.locate(np.arange(137))
    assert len(set(zip(parts.tolist(), rows.tolist(), strict=True))) == 137


def test_weights_by_tokens_count_tokens_not_rows() -> None:
    """Rows of part 0 hold 100 tokens, of part 1 only 25: equal tokens mean four rows of part 1 for each of part 0."""
    mixture = Mixture([Numbers(10, n_tokens=1000), Numbers(40, n_tokens=1000)], [1, 1], by="tokens")
    assert mixture.shares == [Fraction(1, 5), Fraction(4, 5)]


def test_weights_by_documents() -> None:
    mixture = Mixture([Numbers(10, n_documents=10), Numbers(10, n_documents=30)], [1, 1], by="documents")
    assert mixture.shares == [Fraction(3, 4), Fraction(1, 4)]


def test_a_part_without_a_share_never_comes_and_changes_nothing() -> None:
    samples = np.arange(200)
    parts, rows = Mixture([Numbers(30), Numbers(50), Numbers(7)], [0.0, 1.0, 0.0], by="rows").locate(samples)
    assert set(parts) == {1}
    mixed, of_mixed = Mixture([Numbers(30), Numbers(50), Numbers(7)], [0.5, 0.25, 0.25], by="rows").locate(np.arange(800))
    assert (of_mixed[mixed == 1][:200] == rows).all()


@pytest.mark.parametrize(
    ("parts", "weights", "by"),
    [
        ([], None, "rows"),
        ([Numbers(0)], None, "rows"),
        ([Numbers(5), Numbers(5)], [1.0], "rows"),
        ([Numbers(5), Numbers(5)], [0.0, 0.0], "rows"),
        ([Numbers(5), Numbers(5)], [1.0, -1.0], "rows"),
        ([Numbers(5), Numbers(5)], [1.0, float("nan")], "rows"),
        ([Numbers(5), Numbers(5)], [1.0, 1.0], "tokens"),
    ],
)
def test_senseless_mixtures_are_refused(parts: list[Numbers], weights: list[float] | None, by: str) -> None:
    with pytest.raises(UsageError):
        Mixture(parts, weights, by=by)  # type: ignore[arg-type]
