"""How sure a law is: whole runs are drawn, whole values are held out."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.planning.dcpt_law.fitted import fit_loss
from headstart.planning.dcpt_law.forms import L3, L5, Cells
from headstart.planning.dcpt_law.points import LossTable, read_points
from headstart.planning.dcpt_law.refit import (
    bootstrap,
    cross_validate,
    folds,
    held_out,
    interpolated,
    neighbourhood,
    quality,
    resample,
    rivals,
    unidentified,
)
from headstart.planning.dcpt_law.solve import HIGH, LOW, Fit, fit, start_grid
from tests.planning.tables import DOM, GEN, RATIOS, rows


@pytest.fixture(scope="module")
def table() -> LossTable:
    return read_points((("losses.csv", number, row) for number, row in enumerate(rows(), start=2)))


@pytest.fixture(scope="module")
def best(table: LossTable) -> Fit:
    losses = table.losses("domain")
    return fit(L3, table.cells("domain"), losses, starts=start_grid(L3, losses)[::16])


def test_quality() -> None:
    losses = np.array([1.0, 2.0, 3.0])
    assert quality(losses, losses).r2 == 1
    assert quality(np.full(3, 2.0), losses).r2 == 0
    off = quality(losses * np.exp(2e-3), losses)
    assert (off.error, off.huber) == pytest.approx((2e-3, 1.5e-6))


def test_every_run_is_drawn_whole_and_as_many_as_there_are() -> None:
    counts = resample(18, 50)
    assert counts.shape == (50, 18)
    assert (counts.sum(1) == 18).all()
    assert (counts == resample(18, 50)).all()
    assert 0.55 < (counts > 0).mean() < 0.72  # 1 - 1/e of the runs


def test_neighbourhood_is_the_specifications() -> None:
    starts = neighbourhood(DOM, draw=7)
    noise = np.random.default_rng(1007).normal(0, 0.3, (8, 9))
    np.testing.assert_allclose(starts, np.clip(DOM.logs + noise, LOW, HIGH))


def test_refits_of_exact_points_are_all_the_law(table: LossTable) -> None:
    """Whatever runs are drawn; a draw of few runs would not be exact were points drawn in with their neighbours' weights."""
    cells = table.cells("domain")
    losses = DOM.predict(cells)
    exact = fit(L3, cells, losses, starts=DOM.logs[None] + 0.1)
    for law in bootstrap(exact, cells, losses, resample(table.n_runs, 3)[:, table.run]):
        np.testing.assert_allclose(law.predict(cells), losses, rtol=1e-7)


def test_a_run_that_is_drawn_twice_counts_twice(table: LossTable, best: Fit) -> None:
    """As if its points stood twice in the table."""
    cells, losses = table.cells("domain"), table.losses("domain")
    often = np.where(table.run == 4, 8, 1)
    copies = np.repeat(np.arange(len(losses)), often)
    (drawn,) = bootstrap(best, cells, losses, often[None])
    copied = fit(L3, cells[copies], losses[copies], starts=neighbourhood(best.law, 0)).law
    at = cells[table.run == 4]
    np.testing.assert_allclose(drawn.predict(at), copied.predict(at), rtol=2e-4)
    assert np.abs(best.law.predict(at) / copied.predict(at) - 1).max() > 4e-4, "it matters how often a run is drawn"


def test_given_parameters_stay_in_refits(table: LossTable) -> None:
    losses = table.losses("domain")
    given = fit(L3, table.cells("domain"), losses, {"alpha": 0.2}, start_grid(L3, losses)[::32])
    assert given.law["alpha"] == 0.2
    (law,) = bootstrap(given, table.cells("domain"), losses, resample(table.n_runs, 1)[:, table.run])
    assert law["alpha"] == pytest.approx(0.2, rel=1e-12)


def test_both_losses_are_of_the_same_draws(table: LossTable) -> None:
    """A run without general text is drawn for both, and counts for the domain law only."""
    draws = resample(table.n_runs, 2)
    domain, general = (fit_loss(table, which, L3, draws=draws) for which in ("domain", "general"))  # type: ignore[arg-type]
    assert (domain.fit.n_points, general.fit.n_points) == (108, 90)
    assert len(domain.draws) == len(general.draws) == 2
    inside = table.r_d < 1
    alone = bootstrap(general.fit, table.cells("general")[inside], table.losses("general")[inside], draws[:, table.run[inside]])
    assert [law.parameters for law in alone] == [law.parameters for law in general.draws]


def test_an_interval_holds_the_truth_and_is_wider_where_nothing_was_measured(table: LossTable) -> None:
    found = fit_loss(table, "domain", L3, draws=resample(table.n_runs, 30))
    ends = found.interval(Cells.of([1.8, 7.0], [10.0, 40.0], [0.5, 0.5]))
    assert ends is not None
    low, high = ends
    truth = DOM.loss(1.8, 10, 0.5)
    assert low[0] < truth < high[0]
    assert high[1] - low[1] > 2 * (high[0] - low[0])


def test_folds_hold_out_whole_values() -> None:
    values = np.repeat([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0], 3)
    assert [fold.tolist() for fold in folds(values, "tokens")] == [[1, 2, 4], [8, 16], [32, 64]]
    assert [fold.tolist() for fold in folds(values, "ratios")] == [[1, 8, 64], [2, 16], [4, 32]]


def test_cross_validation_predicts_what_it_has_not_seen(table: LossTable, best: Fit) -> None:
    """Held-out errors are above the fitted ones, and of the noise's size; two of three sizes cannot tell alpha."""
    cells, losses = table.cells("domain"), table.losses("domain")
    within = quality(best.law.predict(cells), losses).error
    for over in ("sizes", "tokens", "ratios"):
        found = cross_validate(best.law, {}, cells, losses, over)  # type: ignore[arg-type]
        assert found is not None
        assert found.n == len(losses)
        assert within < found.error < 0.02
    assert unidentified(L3, cells[cells.n > 1]) == ["alpha"]
    assert unidentified(L3, cells[np.isin(cells.r, (0.1, 0.5, 0.8))]) == ["eta", "gamma"]
    assert unidentified(L5, cells[cells.n == 1.8]) == ["A", "alpha"]
    assert cross_validate(best.law, {}, cells[cells.n > 1], losses[cells.n > 1], "sizes") is None


@pytest.mark.slow
def test_rivals_see_the_same_points(table: LossTable, best: Fit) -> None:
    cells, losses = table.cells("domain"), table.losses("domain")
    without = held_out(best.law, best.fixed, cells, losses, "ratios")
    found = {rival.name: rival for rival in rivals(best, cells, losses, without)}
    assert found["L3"].held_out["ratios"] == cross_validate(best.law, best.fixed, cells, losses, "ratios"), "as if it were held out here"
    assert list(found) == ["L3", "L1", "L4", "L5", "chinchilla", "interpolation"]
    assert [found[name].parameters for name in found] == [9, 8, 8, 6, 5 * len(RATIOS), 0]
    errors = {name: rival.within.error for name, rival in found.items() if rival.within is not None}
    assert errors["L3"] < errors["L1"] < errors["L4"] < errors["L5"]
    assert errors["chinchilla"] < errors["L3"], "with a law for each ratio it bends to the noise"
    assert "ratios" not in found["chinchilla"].held_out, "it says nothing of a ratio that it has not seen"


def test_interpolation_is_exact_on_straight_lines_and_only_there() -> None:
    n, d, r = np.array([(n, d, r) for n in (1.0, 2.0) for d in (1.0, 4.0) for r in RATIOS]).T
    cells = Cells.of(n, d, r)
    straight = interpolated(cells, 3 - r + 1 / n)
    assert straight is not None
    assert straight.error < 1e-12
    bent = interpolated(cells, GEN.predict(cells))
    assert bent is not None
    assert bent.error > 1e-3
    assert interpolated(cells[r > 0.1], GEN.predict(cells[r > 0.1])) is None, "four ratios leave too few lines"
