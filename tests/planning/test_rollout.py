"""What a law errs by where nothing was measured: seen on its own points, carried on, and in every interval."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from headstart.planning.dcpt_law import ask
from headstart.planning.dcpt_law.answers import Ranges
from headstart.planning.dcpt_law.fitted import Fitted, fit_loss
from headstart.planning.dcpt_law.forms import L3, Array, Cells, Law
from headstart.planning.dcpt_law.points import LossTable, read_points
from headstart.planning.dcpt_law.refit import bootstrap, quality, resample
from headstart.planning.dcpt_law.rollout import Errors, Rollout, errors
from headstart.planning.dcpt_law.solve import Fit, fit, start_grid
from tests.planning.tables import rows

ONE_SIZE = L3.without_n()
RATIOS = (0.1, 0.2, 0.5, 0.8, 1.0)
FAR = 24.0
"""D over D_max of a run that `plan cpt` plans: planning is a fifth of the budget, in six runs."""


def sweep(loss: Callable[[Array, Array], Array], noise: float, seed: int = 0) -> tuple[Cells, Array, Array]:
    """(cells, losses, numbers of runs) of five mixtures of one model, looked at nine times from D = 1/8 to 1."""
    counts = 2.0 ** np.linspace(-3, 0, 9)
    d, r = np.tile(counts, len(RATIOS)), np.repeat(RATIOS, len(counts))
    losses = loss(d, r) * np.exp(np.random.default_rng(seed).normal(0, noise, len(d)))
    return Cells.of(1.0, d, r), losses, np.repeat(np.arange(len(RATIOS)), len(counts))


def law_of(d: Array, r: Array) -> Array:
    return 2.5 + 0.5 * r**0.8 * d**-0.3 + 0.4 * (r + 0.05) ** -0.4


def with_transient(d: Array, r: Array) -> Array:
    """A law whose first looks are still in the transient, which no term can say."""
    return law_of(d, r) + 0.15 * np.exp(-d / 0.15)


def fitted(cells: Cells, losses: Array) -> Fit:
    return fit(ONE_SIZE, cells, losses, starts=start_grid(ONE_SIZE, losses)[::8])


def test_exact_points_of_the_law_show_no_error() -> None:
    cells, losses, _ = sweep(law_of, 0.0)
    found = errors(fitted(cells, losses), cells, losses)
    assert [(round(one.factor, 1), one.n) for one in found.rollouts] == [(1.5, 10), (1.9, 10), (2.5, 10), (4.2, 10)]  # looks stand 3/8 octave apart
    assert max(found.within, *(one.error for one in found.rollouts)) < 1e-3


def test_a_transient_inside_the_range_is_seen_beyond_it() -> None:
    cells, losses, _ = sweep(with_transient, 0.0)
    best = fitted(cells, losses)
    found = errors(best, cells, losses)
    assert found.rate("tokens") > 0.001
    assert found.rate("sizes") == 0
    off = abs(np.log(best.law.loss(1, FAR, 0.5) / with_transient(np.array(FAR), np.array(0.5))))
    spread = found.spread(Cells.of(1, FAR, 0.5), Ranges.of(cells))[0]
    assert off < 2 * spread < 0.3


def test_an_error_grows_as_the_remainder_of_an_interpolation_and_noise_does_not_grow() -> None:
    """A parabola in log D that a line was laid through at two places: what the line misses at a third says what it misses at a fourth."""
    low, high, tried, far = (math.log(value) for value in (1.0, 4.0, 8.0, 96.0))
    missed = lambda x: 0.002 * (x - low) * (x - high)  # noqa: E731
    seen = Errors(0.0, (Rollout("tokens", 2.0, (tried - low) * (tried - high), missed(tried), 0.0, 5),))
    ranges = Ranges((1.0, 4.0), (1.0, 4.0), (0.1, 1.0))
    assert seen.spread(Cells.of(2.0, [96.0, 2.0], 0.5), ranges) == pytest.approx([missed(far), 0.0])
    assert missed(far) / missed(tried) == pytest.approx(10.064, abs=0.001)
    noisy = Rollout("tokens", 2.0, 1.0, 0.01, 0.006, 5)
    assert noisy.rate == pytest.approx(0.008)  # what the law was off by on its own points is taken out
    assert Rollout("tokens", 2.0, 1.0, 0.01, 0.011, 5).rate == 0
    both = Errors(0.003, (noisy, Rollout("tokens", 4.0, 1.0, 0.01, 0.01, 5), Rollout("sizes", 2.0, 0.5, 0.02, 0.0, 5)))
    assert (both.rate("tokens"), both.rate("sizes")) == pytest.approx((0.008 / math.sqrt(2), 0.04))
    by_n = 0.04 * math.log(8) * math.log(2)
    assert both.spread(Cells.of([8.0, 0.5], 2.0, 0.5), ranges) == pytest.approx([by_n, by_n]), "below it too"


def test_further_out_than_the_points_reach_is_doubted() -> None:
    seen = Errors(0.003, (Rollout("tokens", 2.0, 1.0, 0.01, 0.006, 5),))
    ranges = Ranges((1.0, 1.0), (1.0, 8.0), (0.1, 1.0))
    assert seen.doubts(1.0, 64.0, ranges) == []
    (line,) = seen.doubts(1.0, 80.0, ranges)
    assert "10 times the largest D measured is further than the points reach (8-fold); at 2 times its own a law was off by 1" in line
    (line,) = Errors(0.003, ()).doubts(1.0, 80.0, ranges)
    assert "too few to try the law beyond its own" in line


def test_the_largest_size_is_predicted_from_the_others_and_a_file_keeps_it_all() -> None:
    table = read_points((("losses.csv", number, row) for number, row in enumerate(rows(), start=2)))
    found = fit_loss(table, "domain", L3, draws=resample(table.n_runs, 2))
    assert found.errors is not None
    assert [(one.over, one.n) for one in found.errors.rollouts] == [("tokens", 36), ("tokens", 36), ("tokens", 36), ("tokens", 36), ("sizes", 36)]
    assert found.errors.rollouts[-1].factor == pytest.approx(4.0 / 1.8)
    assert 0.001 < found.errors.within < 0.02
    again = Fitted.from_json(found.to_json(), "domain")
    assert again.errors == found.errors
    older = {name: value for name, value in found.to_json().items() if name != "errors"}
    assert Fitted.from_json(older, "domain").errors is None


def test_too_few_token_counts_are_not_tried() -> None:
    cells, losses, _ = sweep(law_of, 0.001)
    kept = np.isin(cells.d, np.unique(cells.d)[-3:])  # of which two are left to be fitted
    assert errors(fitted(cells, losses), cells[kept], losses[kept]).rollouts == ()


def test_errors_are_drawn_as_often_above_as_below_and_far_out_with_the_tails_of_few_rollouts() -> None:
    seen, ranges = Errors(0.01, (Rollout("tokens", 2.0, 1.0, 0.02, 0.0, 5),) * 3), Ranges((1.0, 1.0), (1.0, 2.0), (0.1, 1.0))
    near, far = seen.drawn(1000, "domain", Cells.of(1.0, [2.0, 2 * math.e], 0.5), ranges).T
    assert np.sort(near) == pytest.approx(-np.sort(-near)[::-1])
    assert (near.std(), np.quantile(near, 0.95)) == pytest.approx((0.01, 0.01645), rel=0.02)
    spread = 0.02 * (1 + math.log(2))
    assert np.quantile(far, 0.95) == pytest.approx(math.hypot(0.0165, 2.353 * spread), rel=0.06)  # 2.353: t of three
    other = seen.drawn(1000, "general", Cells.of(1.0, 2.0, 0.5), ranges)[:, 0]
    assert abs(np.corrcoef(near, other)[0, 1]) < 0.1
    assert seen.drawn(1000, "domain", Cells.of(1.0, 2.0, 0.5), ranges, unsure=0.03)[:, 0].std() == pytest.approx(math.hypot(0.01, 0.03), rel=0.01)


def test_what_annealing_does_is_less_sure_in_a_longer_run() -> None:
    law, size = Law.of(ONE_SIZE, (2.5, 0.5, 0.3, 0.8, 0.4, 0.4, 0.05)), Ranges((1.0, 1.0), (0.1, 1.0), (0.1, 1.0))
    cells = Cells.of(1.0, [0.5, 1.0], 0.5)
    known = Fitted("domain", Fit(law, 0.0, 2, 1, 1, 0, {}), quality(law.predict(cells), law.predict(cells)), size, 1.0, 1.0, (law,) * 200)
    sure = Fitted(**{**vars(known), "errors": Errors(0.0, ())})
    for d, width in ((1.0, 0.0), (1.5, 2 * 1.645 * 0.08)):
        found = ask.predicted([sure], 1.0, d, 0.5, anneal=(-0.08, 0.05)).figures["domain_loss"]
        assert found.value == pytest.approx(law.loss(1.0, d, 0.5) - 0.05)
        assert found.low is not None
        assert found.high is not None
        assert found.high - found.low == pytest.approx(width, rel=0.02, abs=1e-9)


def test_an_answer_is_as_uncertain_as_the_loss_it_is_made_of(table: LossTable) -> None:
    """The same refits, with and without what the law errs by beside them."""
    sure = fit_loss(table, "general", L3, draws=resample(table.n_runs, 12))
    unsure = Fitted(**{**vars(sure), "errors": Errors(0.01, ())})
    narrow, wide = (ask.best_ratio(None, law, 1.8e9, 1e10, 0.03, sure.law.loss(1.8, 10, 1.0)).figures["r_d"] for law in (sure, unsure))
    assert None not in (narrow.low, narrow.high, wide.low, wide.high)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)  # type: ignore[operator]
    assert wide.value == narrow.value


@pytest.fixture(scope="module")
def table() -> LossTable:
    return read_points((("losses.csv", number, row) for number, row in enumerate(rows(), start=2)))


def some_truth(seed: int) -> Callable[[Array, Array], Array]:
    """A law of its own for each seed, and a transient that no law has."""
    low, high = np.array([(2, 4), (0.2, 0.9), (0.1, 0.5), (0.3, 1.3), (0.2, 0.8), (0.2, 0.6), (0.02, 0.2)]).T
    e, b, beta, eta, c, gamma, eps = np.random.default_rng(200 + seed).uniform(low, high)
    return lambda d, r: e + b * r**eta * d**-beta + c * (r + eps) ** -gamma + 0.15 * np.exp(-d / 0.15)


@pytest.mark.slow
def test_the_interval_of_a_far_run_holds_what_it_will_measure() -> None:
    """24 times further than measured, of truths that are not quite the law: refits alone agree on what is wrong."""
    inside = {"refits": 0, "all": 0}
    for seed in range(8):
        truth = some_truth(seed)
        cells, losses, run = sweep(truth, 0.002, seed)
        best = fitted(cells, losses)
        laws = tuple(bootstrap(best, cells, losses, resample(len(RATIOS), 12)[:, run]))
        measured = float(truth(np.array(FAR), np.array(0.6))) * math.exp(np.random.default_rng(100 + seed).normal(0, 0.002))
        ranges, how = Ranges.of(cells), quality(best.law.predict(cells), losses)
        for name, seen in (("refits", None), ("all", errors(best, cells, losses))):
            ends = Fitted("domain", best, how, ranges, 1e6, 1e6, laws, errors=seen).interval(Cells.of(1.0, FAR, 0.6))
            assert ends is not None
            inside[name] += bool(ends[0][0] < measured < ends[1][0])
            assert ends[1][0] - ends[0][0] < 0.5 * measured, "it still says something"
    assert inside["all"] >= 7
    assert inside["refits"] < inside["all"]
