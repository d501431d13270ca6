"""The numbered checks of the D-CPT law's specification: values, derivatives, recovery of known laws, the answers that follow from them, and the order
of a sweep's mixture."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.data.mixture import Mixture
from headstart.planning.dcpt_law import answers, plan
from headstart.planning.dcpt_law.answers import Ranges
from headstart.planning.dcpt_law.domains import beyond, fit_domains, learnability
from headstart.planning.dcpt_law.fitted import fit_loss
from headstart.planning.dcpt_law.forms import CROSS_DOMAIN, L1, L3, Array, Cells, Law
from headstart.planning.dcpt_law.points import LossTable, refuse_few
from headstart.planning.dcpt_law.refit import quality
from headstart.planning.dcpt_law.solve import HIGH, LOW, SCALE, Fit, fit, huber, objective, objective_and_gradient, plain, start_grid

DOM = Law.of(L3, (1.20, 0.30, 0.25, 0.08, 0.30, 1.30, 0.45, 0.40, 0.08))
GEN = Law.of(L3, (1.90, 0.35, 0.22, 0.06, 0.25, 1.20, 0.25, 0.30, 0.03))
SIZES, COUNTS, RATIOS = (0.5, 1.8, 4.0), np.arange(1, 21) / 2, (0, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1)
GRID = Cells.of(*np.array([(n, d, r) for n in SIZES for d in COUNTS for r in RATIOS]).T)
HELD_OUT = Cells.of(*np.array([(7.0, d, r) for d in (2.3, 7.7, 15) for r in (0.05, 0.4, 0.732, 0.924)]).T)
BEFORE = 2.4890779608
"""General loss of the checkpoint in check 6: GEN at N 1.8, D 10, r_g 1."""


def noisy(law: Law, seed: int, cells: Cells = GRID) -> Array:
    return law.predict(cells) * np.exp(np.random.default_rng(seed).normal(0, 0.002, len(cells)))


def recovered(law: Law, seed: int | None) -> Fit:
    """A fit from every eighth of the 128 starts: the test of all starts holds that the others end at the same optimum."""
    losses = law.predict(GRID) if seed is None else noisy(law, seed)
    return fit(L3, GRID, losses, starts=start_grid(L3, losses)[::8])


def worst(found: Fit, law: Law, cells: Cells = HELD_OUT) -> float:
    return float(np.abs(found.law.predict(cells) / law.predict(cells) - 1).max())


@pytest.fixture(scope="module")
def domain_fit() -> Fit:
    return recovered(DOM, 0)


@pytest.fixture(scope="module")
def general_fit() -> Fit:
    return recovered(GEN, 2)


def table(domain: Array | None, cells: Cells = GRID, general: Array | None = None) -> LossTable:
    """The grid as a table in billions."""
    run = np.unique(np.stack([cells.n, cells.r]), axis=1, return_inverse=True)[1].ravel()
    places = np.array([f"made, record {number}" for number in range(len(cells))])
    return LossTable(cells.n, cells.d, cells.r, domain, general, run, None, None, None, places, 1e9, 1e9)


def test_01_values() -> None:
    assert DOM.loss(1.8, 10, 0.5) == pytest.approx(2.0348387408, abs=1e-10)
    assert DOM.loss(0.5, 0.5, 0) == pytest.approx(2.7926427457, abs=1e-10)
    assert DOM.loss(4, 10, 1) == pytest.approx(1.8885850824, abs=1e-10)
    assert GEN.loss(1.8, 10, 0.5) == pytest.approx(2.5246835359, abs=1e-10)


def test_02_derivatives() -> None:
    assert DOM.slope_by_ratio(1.8, 10, 0.5) == pytest.approx(-0.3435612835, abs=1e-10)
    assert DOM.interaction(10, 0.5) == pytest.approx(-0.0012701225, abs=1e-10)
    assert DOM.least_d == pytest.approx(0.2300631, abs=1e-7)
    step = 1e-6
    by_ratio = (DOM.loss(1.8, 10, 0.5 + step) - DOM.loss(1.8, 10, 0.5 - step)) / (2 * step)
    assert DOM.slope_by_ratio(1.8, 10, 0.5) == pytest.approx(by_ratio, rel=1e-7)
    least = DOM.least_d
    assert least is not None
    assert DOM.slope_by_ratio(1.8, least, 1.0) == pytest.approx(0, abs=1e-12)
    assert all(DOM.slope_by_ratio(1.8, 1.001 * least, r) < 0 for r in np.linspace(0, 1, 101))
    assert Law(L3, {**DOM.parameters, "eta": 0.9}).least_d is None


@pytest.mark.parametrize("form", [L3, L1, CROSS_DOMAIN, L3.without_n()], ids=lambda form: f"{form.name}-{len(form.names)}")
def test_03_gradient_of_the_objective_agrees_with_central_differences(form) -> None:  # type: ignore[no-untyped-def]
    cells = Cells(GRID.n, GRID.d, GRID.r, np.full(len(GRID), 1.3), np.linspace(0.03, 0.15, len(GRID)))
    truth = {**DOM.parameters, "F": 0.3, "mu": 1.5, "w2": 2.0}
    at = np.log([1.1 * truth[name] for name in form.names])
    losses = DOM.predict(GRID)
    _, gradient = objective_and_gradient(at, form, cells, losses)
    for place in range(len(at)):
        step = np.zeros(len(at))
        step[place] = 1e-6
        up, down = objective(np.stack([at + step, at - step]), form, cells, losses)
        assert gradient[place] == pytest.approx((up - down) / 2e-6, rel=1e-6)


def test_04_recovery_without_noise() -> None:
    found = recovered(DOM, None)
    assert found.law.parameters == pytest.approx(DOM.parameters, rel=1e-4)
    assert quality(found.law.predict(GRID), DOM.predict(GRID)).r2 == pytest.approx(1, abs=1e-12)
    assert found.objective < 1e-15
    assert worst(found, DOM) < 1e-8


def test_05_recovery_with_noise(domain_fit: Fit, general_fit: Fit) -> None:
    """On predictions only: the parameters trade off against each other."""
    assert quality(domain_fit.law.predict(GRID), noisy(DOM, 0)).r2 == pytest.approx(0.99967, abs=1e-4)
    assert worst(domain_fit, DOM) == pytest.approx(0.00059, abs=2e-5)
    second = recovered(DOM, 1)
    assert quality(second.law.predict(GRID), noisy(DOM, 1)).r2 == pytest.approx(0.99972, abs=1e-4)
    assert worst(second, DOM) == pytest.approx(0.00146, abs=2e-5)
    assert second.law["C"] < 0.9 * DOM["C"], "a parameter may be far off where predictions are not"
    assert quality(general_fit.law.predict(GRID), noisy(GEN, 2)).r2 == pytest.approx(0.99871, abs=1e-4)
    assert worst(general_fit, GEN) == pytest.approx(0.0011, abs=5e-5)


def test_the_grid_of_starts_and_the_box_are_those_of_the_specification() -> None:
    losses = DOM.predict(GRID)
    values = np.exp(start_grid(L3, losses))
    of_each = dict(zip(L3.names, (sorted({round(float(value), 12) for value in column}) for column in values.T), strict=True))
    assert of_each.pop("E") == pytest.approx([0.4 * losses.min(), 0.8 * losses.min()])
    assert of_each == {
        "A": [0.2], "alpha": [0.1, 0.4], "B": [0.1], "beta": [0.2, 0.5], "eta": [0.5, 1.5], "C": [0.2, 0.6], "gamma": [0.2, 0.6], "eps": [0.02, 0.2],
    }  # fmt: skip
    assert len(np.unique(values, axis=0)) == 128
    assert (LOW, HIGH, SCALE) == (-9.0, 3.0, 1e6)


@pytest.mark.slow
@pytest.mark.parametrize(("law", "seed"), [(DOM, None), (DOM, 0), (GEN, 2)], ids=["exact", "domain", "general"])
def test_all_starts_end_where_an_eighth_of_them_does(law: Law, seed: int | None) -> None:
    losses = law.predict(GRID) if seed is None else noisy(law, seed)
    assert len(start_grid(L3, losses)) == 128
    every = fit(L3, GRID, losses)
    assert every.agreeing >= 120
    assert every.objective == pytest.approx(recovered(law, seed).objective, rel=1e-6, abs=1e-15)


@pytest.mark.slow
def test_no_start_of_the_plain_way_ends_lower() -> None:
    """L-BFGS-B from four starts, as far as it goes."""
    losses = noisy(DOM, 0)
    starts = start_grid(L3, losses)[::32]
    slow = plain(L3, GRID, losses, starts=starts)
    quick = fit(L3, GRID, losses, starts=starts)
    assert quick.objective <= slow.objective * (1 + 1e-9)
    assert slow.objective == pytest.approx(quick.objective, rel=1e-4), "and they are the same optimum"


def test_06_trade_off(domain_fit: Fit, general_fit: Fit) -> None:
    ratios = {limit: answers.trade_off(GEN, 1.8, 10, limit, BEFORE) for limit in (0.0, 0.01, 0.03, 0.05, 0.2)}
    assert ratios == pytest.approx({0.0: 0.0, 0.01: 0.4096119754, 0.03: 0.6986024543, 0.05: 0.8243676538, 0.2: 1.0}, abs=1e-8)
    assert DOM.loss(1.8, 10, ratios[0.01]) == pytest.approx(2.0703534, abs=1e-7)  # type: ignore[arg-type]
    assert DOM.loss(1.8, 10, ratios[0.03]) == pytest.approx(1.9815325, abs=1e-7)  # type: ignore[arg-type]
    assert GEN.loss(1.8, 10, 1 - ratios[0.03]) == pytest.approx(2.5637503, abs=1e-7)  # type: ignore[operator]
    assert answers.trade_off(GEN, 1.8, 10, 0.03, 2.3) is None, "even general text alone is above 2.3 and 3 %"

    general = general_fit.law
    of_fits = answers.trade_off(general, 1.8, 10, 0.03, general.loss(1.8, 10, 1))
    assert of_fits == pytest.approx(0.6961, abs=2e-4)
    assert of_fits == pytest.approx(0.6986, abs=0.01)
    assert of_fits is not None
    assert domain_fit.law.loss(1.8, 10, of_fits) == pytest.approx(DOM.loss(1.8, 10, of_fits), rel=0.001)


def test_07_limited_domain_text() -> None:
    ratio, tokens = answers.limited_text(DOM, 1.8, 0.05)
    assert (ratio, tokens) == pytest.approx((0.7015316295, 0.0712726), abs=1e-7)
    assert DOM.loss(1.8, tokens, ratio) == pytest.approx(2.0670817, abs=1e-7)
    assert DOM.loss(1.8, 0.05, 1.0) == pytest.approx(2.0918766, abs=1e-7)
    ratio, tokens = answers.limited_text(DOM, 1.8, 0.2)
    assert ratio == pytest.approx(0.8762443080, abs=1e-8)
    assert DOM.loss(1.8, tokens, ratio) == pytest.approx(2.0220778, abs=1e-7)
    assert answers.limited_text(DOM, 1.8, 0.5) == (1.0, 0.5)
    flat = Law(L3, {**DOM.parameters, "eta": 0.4, "beta": 0.3})  # eta + beta below 1: no bisection there
    ratio, tokens = answers.limited_text(flat, 1.8, 0.001)
    grid = np.linspace(0.001, 1, 1000)
    assert flat.loss(1.8, tokens, ratio) <= flat.predict(Cells.of(1.8, 0.001 / grid, grid)).min() + 1e-9


def test_08_budget() -> None:
    n, d = answers.best_size(DOM, 108, 0.5)
    assert (n, d) == pytest.approx((197.6727709, 0.0910595825), rel=1e-8)
    assert DOM.loss(n, d, 0.5) == pytest.approx(1.9062348, abs=1e-7)
    sizes = np.geomspace(0.1, 10_000, 400_001)
    brute = float(sizes[DOM.predict(Cells.of(sizes, 18 / sizes, 0.5)).argmin()])
    assert n == pytest.approx(brute, rel=1e-4)
    assert answers.best_size(DOM, 108, 0.5, [0.5, 1.8, 4.0]) == (4.0, 4.5)
    warnings = Ranges.of(GRID).beyond(n, d, 0.5)
    assert warnings == [
        f"extrapolation: factor {197.6727709 / 4:.3g} above the largest N measured",
        f"extrapolation: factor {0.5 / 0.0910595825:.3g} below the smallest D measured",
    ]
    assert Ranges.of(GRID).beyond(4.0, 10.0, 1.0) == []


def test_09_least_tokens() -> None:
    assert answers.least_tokens(DOM, 1.8, 0.8, 1.95) == pytest.approx(61.5738327, abs=1e-6)
    assert answers.least_tokens(DOM, 1.8, 0.8, 1.92) is None
    with pytest.raises(UsageError, match="Without any of the text"):
        answers.least_tokens(DOM, 1.8, 0.0, 1.95)
    assert answers.limit_of_data(DOM, 1.8, 0.8) == pytest.approx(1.9326105, abs=1e-7)


def test_10_published_example() -> None:
    ratios = (0.90, 0.91, 0.92, 0.924, 0.93, 0.94, 1.0)
    losses = (2.9052, 2.9193, 2.9376, 2.9445, 2.9644, 2.9848, 3.4667)
    assert answers.limit_of(2.8602, 0.03) == pytest.approx(2.946006, abs=1e-9)
    assert answers.largest_allowed(ratios, losses, 2.8602, 0.03) == 0.924
    assert answers.largest_allowed(ratios, losses, 2.8602, 0.001) is None


DOMAINS = {
    "code": (1.30, 0.060), "math": (1.75, 0.110), "law": (2.10, 0.090), "chemistry": (2.40, 0.150), "music": (1.55, 0.030), "medical": (2.00, 0.125),
}  # fmt: skip
CROSS = Law(CROSS_DOMAIN, {**DOM.parameters, "E": 0.60, "F": 0.30, "mu": 1.50, "w2": 2.0})


def sweeps(names: list[str], cells: Cells = GRID) -> Cells:
    """Those cells in each domain, one domain after the other."""
    of_each = [Cells.of(cells.n, cells.d, cells.r, *DOMAINS[name]) for name in names]
    return Cells(*(np.concatenate([getattr(one, field) for one in of_each]) for field in ("n", "d", "r", "k1", "k2")))


def test_11_cross_domain_values() -> None:
    values = {"code": 0.889231, "math": 0.791429, "law": 0.656190, "chemistry": 0.716667, "music": 0.705161, "medical": 0.750000}
    assert {name: learnability(*DOMAINS[name], w2=2.0) for name in DOMAINS} == pytest.approx(values, abs=1e-6)
    losses = {"code": 1.792605, "math": 1.860931, "law": 1.999225, "chemistry": 1.929315, "music": 1.941466, "medical": 1.896719}
    assert {name: CROSS.loss(1.8, 10, 0.5, *DOMAINS[name]) for name in DOMAINS} == pytest.approx(losses, abs=1e-6)
    with pytest.raises(BadInput, match="of 2 domains; the cross-domain law needs 3"):
        fit_domains(sweeps(["code", "math"]), CROSS.predict(sweeps(["code", "math"])))
    assert beyond(CROSS, sweeps(list(DOMAINS)), 2.0, 0.125) == []
    assert beyond(CROSS, sweeps(list(DOMAINS)), 1.0, 0.125) == ["extrapolation: K = 1.25, the domains that were fitted have 0.656 to 0.889"]


@pytest.mark.slow
def test_11_cross_domain_recovery() -> None:
    known, new = sweeps(list(DOMAINS)[:4]), sweeps(["music", "medical"], HELD_OUT)
    assert len(known) == 2160
    exact = fit_domains(known, CROSS.predict(known))
    assert exact.law["w2"] == pytest.approx(2.0, abs=1e-4)
    assert worst(exact, CROSS, new) < 1e-6
    blurred = fit_domains(known, noisy(CROSS, 0, known))
    assert blurred.law["w2"] == pytest.approx(2.005, abs=0.02)
    assert worst(blurred, CROSS, new) < 0.002


def test_12_the_scale_of_k_is_free() -> None:
    """K -> cK: k1 / c, k2 c; F -> F c^mu."""
    c = 3.7
    scaled = Law(CROSS_DOMAIN, {**CROSS.parameters, "F": CROSS["F"] * c ** CROSS["mu"]})
    cells = sweeps(list(DOMAINS))
    assert cells.k1 is not None
    assert cells.k2 is not None
    np.testing.assert_allclose(scaled.predict(Cells(cells.n, cells.d, cells.r, cells.k1 / c, cells.k2 * c)), CROSS.predict(cells), rtol=1e-12)


def test_13_at_a_fixed_ratio_the_law_is_chinchillas() -> None:
    level, data = DOM.at_ratio(0.5)
    assert level == pytest.approx(1.7596, abs=1e-4)
    assert data == pytest.approx(0.03249, abs=1e-5)
    for ratio in RATIOS:
        level, data = DOM.at_ratio(ratio)
        at = GRID.r == ratio
        chinchilla = level + DOM["A"] * GRID.n[at] ** -DOM["alpha"] + data * GRID.d[at] ** -DOM["beta"]
        np.testing.assert_allclose(DOM.predict(GRID)[at], chinchilla, rtol=1e-12)


def test_14_huber() -> None:
    np.testing.assert_allclose(huber([5e-4, -5e-4, 2e-3, -2e-3, 0.0]), [1.25e-7, 1.25e-7, 1.5e-6, 1.5e-6, 0.0], rtol=1e-12)


class Part:
    """Rows that say which they are."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: Array) -> dict[str, Array]:
        return {"row": rows}


def drawn(r_d: float, windows: Array) -> tuple[Array, Array]:
    """(part, row) of these windows of a run at r_d: domain, then general text."""
    weights = [weight for weight in (r_d, 1 - r_d) if weight]
    return Mixture([Part(4_001), Part(9_000)][: len(weights)], weights, seed=3, by="rows").locate(windows)


def test_15_mixture_sampler() -> None:
    windows = np.arange(10_000)
    part, row = drawn(0.33, windows)
    assert (part == 0).mean() == pytest.approx(0.33, abs=0.015)
    for workers in (2, 7):  # each asks for the windows that are its own
        shares = [drawn(0.33, windows[worker::workers]) for worker in range(workers)]
        for worker, (of_part, of_row) in enumerate(shares):
            np.testing.assert_array_equal(of_part, part[worker::workers])
            np.testing.assert_array_equal(of_row, row[worker::workers])
    few = row[part == 0]
    for r_d in (0.5, 0.8, 1.0):
        more_parts, more_rows = drawn(r_d, windows)
        more = more_rows[more_parts == 0]
        assert len(more) > len(few)
        np.testing.assert_array_equal(more[: len(few)], few)


@pytest.mark.parametrize("b", [0.02, 0.08, 0.3])
def test_16_without_interaction_the_data_are_not_fitted(b: float) -> None:
    """However small B is."""
    inside = GRID[GRID.r > 0]
    exact = Law(L3, {**DOM.parameters, "B": b}).predict(inside)
    without, whole = (fit(form, inside, exact, starts=start_grid(form, exact)[::8]) for form in (L1, L3))
    assert whole.objective < 1e-15
    assert without.objective > 1.0


def test_16_where_the_ratio_has_no_part_in_the_data_term_both_fit() -> None:
    inside = GRID[GRID.r > 0]
    no_interaction = Law(L3, {**DOM.parameters, "eta": 1e-12}).predict(inside)
    np.testing.assert_allclose(no_interaction, Law(L1, {name: DOM[name] for name in L1.names}).predict(inside), rtol=1e-11)
    assert fit(L1, inside, no_interaction, starts=start_grid(L1, no_interaction)[::8]).objective < 1e-12


def test_17_one_size() -> None:
    at = GRID.n == 1.8
    one_size = GRID[at]
    assert len(one_size) == 180
    found = fit_loss(table(DOM.predict(one_size), one_size), "domain", L3.without_n()).fit
    assert found.law["E"] == pytest.approx(1.4590020, abs=1e-6)
    assert set(found.law.parameters) == set(DOM.parameters) - {"A", "alpha"}
    np.testing.assert_allclose(found.law.predict(one_size), DOM.predict(one_size), rtol=1e-6)
    with pytest.raises(BadInput, match="one size, which cannot tell") as refused:
        refuse_few(one_size, L3, {}, "domain")
    assert "--without N" in refused.value.mend
    three_ratios = GRID[np.isin(GRID.r, (0.1, 0.5, 0.9))]
    with pytest.raises(BadInput, match="3 ratios; a law needs 4"):
        refuse_few(three_ratios, L3, {}, "domain")
    refuse_few(three_ratios, L3, {"eta": 1.3, "gamma": 0.4}, "domain")
    with pytest.raises(BadInput, match="2 sizes; alpha needs 3"):
        refuse_few(GRID[GRID.n > 1], L3, {}, "domain")
    refuse_few(GRID[GRID.n > 1], L3, {"alpha": 0.25}, "domain")
    with pytest.raises(UsageError, match="without N cannot choose a size"):
        answers.best_size(found.law, 108, 0.5)


def test_18_plan_arithmetic() -> None:
    assert plan.epochs(2_000_000, 0.7, 500_000) == pytest.approx(2.8)
    assert plan.repeats(2.8) == "the domain text is read 2.8 times: the law was made for new text"
    assert plan.repeats(1.0) is None
    with pytest.raises(UsageError, match="400,000 domain tokens 5 times") as refused:
        plan.epochs(2_000_000, 1.0, 400_000)
    assert "r_d 0.8 at these tokens, 1,600,000 tokens at this r_d" in refused.value.mend
    assert answers.limit_of(2.50, 0.02, offset=0.10) == pytest.approx(2.65)
    annealed = answers.trade_off(GEN, 1.8, 10, 0.03, BEFORE, offset=0.10)
    assert annealed is not None
    assert GEN.loss(1.8, 10, 1 - annealed) - 0.10 == pytest.approx(1.03 * BEFORE, abs=1e-8)
