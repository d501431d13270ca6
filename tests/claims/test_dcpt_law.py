"""The D-CPT law's claim: ways of predicting, what is held out, when a recommendation fails. Smoke runs with all others, in test_electra.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.claims import _continual
from headstart.claims._dcpt_sweep import Case, MeasuredSweep
from headstart.claims.dcpt_law import (
    CLAIM,
    DOMAIN_TRUTH,
    FITTED,
    GENERAL_TRUTH,
    HELD_OUT,
    Points,
    Sweeps,
    by_form,
    by_ratio,
    carried_forward,
    error,
    fails,
    held_out,
    interpolated,
    recommended,
    remarks,
    synthetic,
    table_doubts,
)
from headstart.core.run import read_run
from headstart.planning.dcpt_law.forms import L1, L3, Cells
from headstart.planning.dcpt_law.points import LossTable

BEFORE = GENERAL_TRUTH.loss(1.8, 10.0, 1.0)


def exact() -> LossTable:
    """The synthetic sweep without its noise."""
    table = synthetic(0)
    cells = table.cells("domain"), table.cells("general")
    return replace(table, domain=DOMAIN_TRUTH.predict(cells[0]), general=GENERAL_TRUTH.predict(cells[1]))


def test_straight_lines_and_the_last_value_by_hand() -> None:
    cells = Cells.of([1, 1, 1, 1, 2, 2], [1, 1, 1, 2, 1, 1], [0.0, 0.5, 1.0, 0.5, 0.0, 1.0])
    known = Points(cells, np.array([4.0, 3.0, 2.5, 2.8, 5.0, 1.0]))
    np.testing.assert_allclose(interpolated(known, Cells.of([1, 1, 2], [1, 1, 1], [0.25, 0.9, 0.25])), [3.5, 2.6, 4.0])
    np.testing.assert_allclose(carried_forward(known, Cells.of([1, 2], [9, 9], [0.5, 1.0])), [2.8, 1.0])


def test_a_law_for_each_ratio_is_exact_where_the_truth_is_one() -> None:
    table = exact()
    known, asked = held_out(table, "tokens", "domain")
    np.testing.assert_allclose(by_ratio(known, asked.cells), asked.losses, rtol=2e-4)


@pytest.mark.parametrize("test", ["ratios", "size", "tokens"])
def test_whole_runs_are_held_out_and_each_way_sees_the_same(test: str) -> None:
    table = exact()
    for which, at_zero in (("domain", 0.0), ("general", 0.0)):
        known, asked = held_out(table, test, which)
        rows = lambda points: set(zip(points.cells.n, points.cells.d, points.cells.r, strict=True))  # noqa: E731
        assert not rows(known) & rows(asked)
        assert (at_zero in known.cells.r) == (which == "domain")  # the general law leaves r_g = 0 out
        if test == "ratios":
            wanted = HELD_OUT if which == "domain" else [1 - r for r in HELD_OUT]
            np.testing.assert_allclose(sorted(set(np.round(asked.cells.r, 9))), sorted(np.round(wanted, 9)))
        if test == "size":
            assert known.cells.n.max() < asked.cells.n.min()
        if test == "tokens":
            assert known.cells.d.max() <= 5.0 < asked.cells.d.min()
            assert len(np.unique(asked.cells.d)) == 2


def test_errors_are_of_both_losses_and_the_law_is_exact_on_its_own_points() -> None:
    table = exact()
    assert error(table, "ratios", "L3").value < 1e-6
    found = error(table, "ratios", "interpolation")
    residuals = []
    for which in ("domain", "general"):
        known, asked = held_out(table, "ratios", which)
        residuals += np.abs(np.log(interpolated(known, asked.cells) / asked.losses)).tolist()
    assert found.value == pytest.approx(float(np.mean(residuals)))
    assert set(found.beside) == {"R2 of the domain loss", "R2 of the general loss"}
    assert by_form(L1)(*held_out(table, "size", "general")[0:1], held_out(table, "size", "general")[1].cells).shape == (35,)


def test_the_recommendation_is_of_the_fitted_mixtures_and_of_r_g() -> None:
    found = recommended(exact(), 1.8, 10.0, 0.03, BEFORE)
    assert found == pytest.approx(0.6986, abs=1e-3)
    assert recommended(exact(), 1.8, 10.0, 0.03, 2.0) is None


@pytest.mark.parametrize(
    ("case", "failed"),
    [
        (Case(2.0, 2.039, 3.0, 2.060, 2.9), False),  # kept, and a tenth more breaks it
        (Case(2.0, 2.049, 3.0, 2.060, 2.9), False),  # over by noise
        (Case(2.0, 2.051, 3.0, 2.060, 2.9), True),  # broken
        (Case(2.0, 2.030, 3.0, 2.039, 2.9), True),  # a tenth more would have kept it and learned more
        (Case(2.0, 2.030, 3.0, 2.039, 2.996), False),  # ... but hardly more
    ],
)
def test_when_a_recommendation_fails(case: Case, failed: bool) -> None:
    assert fails(case, 0.02) is failed


def test_losses_that_no_law_can_say_are_named_before_anything_is_decided() -> None:
    table = exact()
    assert table_doubts(table) == []
    upside_down = replace(table, domain=table.losses("domain") + 0.2 * np.log(table.n))
    assert table_doubts(upside_down)[0].startswith("the domain loss rises with the size in")
    assert table.general is not None
    swapped = replace(table, general=table.general[np.lexsort((1 - table.r_d, table.d, table.n))])  # r_g taken for r_d
    assert any("does not fall with the share of old text" in doubt for doubt in table_doubts(swapped))


def test_what_stands_beside_the_result() -> None:
    figures = {"L3": {"recommendation: FLOPs of the sweep": 2e14, "recommendation: FLOPs of a grid search of nine ratios": 3e14}}
    figures["L3"] |= {f"ratios: R2 of the {which} loss": 0.98 for which in ("domain", "general")}
    said = " ".join(remarks(figures))
    assert "2e+14" in said
    assert "3e+14" in said
    assert "0.980 of the domain loss" in said


def test_the_verdict_asks_for_one_per_cent_on_ratios_and_size_and_five_of_six_cases() -> None:
    deciding = {comparison.tasks[0]: comparison for comparison in CLAIM.comparisons if comparison.decides}
    assert set(deciding) == {"ratios", "size", "recommendation"}
    assert deciding["recommendation"].cases == (1 / 6, 3 / 6)
    assert {scale.seeds for name, scale in CLAIM.presets.items() if name != "smoke"} == {3}
    assert CLAIM.presets["cpu"].options["steps"] * 16 * 128 == pytest.approx(0.75e6, rel=0.01)


@pytest.mark.slow
def test_a_measured_sweep_shares_its_windows_and_its_order(tmp_path: Path) -> None:
    """Three networks of a few hundred weights on the fixtures' text."""
    options = {"network": "smoke", "sizes": ((1, 8), (1, 16), (1, 24)), "heads": 2, "steps": 40, "domain": "textmed"}
    small = replace(_continual.SMOKE, steps=30)
    sweep = MeasuredSweep(options, tmp_path / "dcpt_law-smoke", (0.0, 0.5), lambda line: None)
    sweep.networks = [replace(network, steps=small.steps) for network in sweep.networks]
    table, on_val = sweep.table(0, "test", "cpu"), sweep.table(0, "val", "cpu")
    assert sorted(np.unique(np.round(table.n * table.unit_n))) == [12 * width**2 for width in (8, 16, 24)]
    assert sorted(np.unique(table.r_d)) == [0.0, 0.5]
    assert len(table) == 3 * 2 * len(sweep.evaluate_at) == len(on_val)
    assert not np.allclose(table.losses("general"), on_val.losses("general"))
    runs = sweep.runs((0.0, 0.5), 0, "cpu")
    measured = {tuple((entry["part"], entry["counts"]["documents"], entry["store"]) for entry in read_run(run)["measured"]) for run in runs}
    assert len(measured) == 1  # one set of windows for all
    case = sweep.case(0.5, 0.6, 0, "cpu")
    half = sweep.runs((0.5,), 0, "cpu", slice(2, 3))[0]
    assert case.general == pytest.approx(float(table.losses("general")[(table.n == table.n.max()) & (table.r_d == 0.5)][-1]))
    assert case.before == sweep.before(0, "test", "cpu")
    assert sweep.flops((0.5,), 0, "cpu") == pytest.approx(sum(read_run(run)["totals"]["flops"] for run in sweep.runs((0.5,), 0, "cpu")))
    assert half.name == "n6912-r0.5-seed-0"
    assert any("nats below the unigram entropy" in doubt for doubt in sweep.upstream_doubts())  # thirty steps leave no plateau
    again = MeasuredSweep(options, tmp_path / "dcpt_law-smoke", (0.0, 0.5), lambda line: None)  # a call that finds all scores in the record
    assert (again.seeds(), again.device) == ([0], "cpu")


def test_smoke_trains_nothing() -> None:
    sweeps = Sweeps({"synthetic": True}, Path("nowhere"))
    assert sweeps.measured is None
    assert len(sweeps.table(0, "val", "cpu")) == 4 * 7 * (len(FITTED) + len(HELD_OUT))
    ratio = sweeps.ratio_for(0.05, 0, "cpu")
    assert ratio is not None
    assert not fails(sweeps.case(ratio, 0, "cpu"), 0.05)
    assert L3.name == "L3"
