"""The table of losses: what is read, and what is refused with the row and the mend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.core.errors import BadInput
from headstart.planning.dcpt_law.forms import L3
from headstart.planning.dcpt_law.points import LossTable, read_points, refuse_few, refuse_rising, rising_in_d, rising_in_n, settled
from tests.planning.tables import Rows, rows


def read(made: Rows, **settings: Any) -> LossTable:
    return read_points((("losses.csv", number, row) for number, row in enumerate(made, start=2)), **settings)


def changed(name: str, value: Any, at: int = 3) -> Rows:
    """The table with one value of the fourth row changed."""
    made = rows()
    made[at][name] = value
    return made


def test_units_of_the_columns_and_of_the_law() -> None:
    plain = read(rows())
    assert plain.unit_n == plain.unit_d == 1e9
    assert sorted(set(plain.n)) == [0.5, 1.8, 4.0]
    in_billions = [row | {"N": row["N"] / 1e9, "D": row["D"] / 1e6} for row in rows()]
    np.testing.assert_allclose(read(in_billions, unit_n=1e9, unit_d=1e6).d, plain.d)
    assert sorted(set(read(rows(sizes=(0.001,)), law_unit=1e9).n)) == [0.001], "points to be predicted take the law's unit"
    small = read([row | {"N": row["N"] / 1e5, "D": row["D"] / 1e4} for row in rows()])
    assert small.unit_n == 1e6
    assert sorted(set(small.n)) == pytest.approx([0.005, 0.018, 0.04])


def test_r_is_the_share_of_the_corpus_whose_loss_it_is() -> None:
    table = read(rows())
    np.testing.assert_array_equal(table.cells("domain").r, table.r_d)
    np.testing.assert_array_equal(table.cells("general").r, np.round(1 - table.r_d, 12))
    assert sorted(set(table.cells("general").r)) == [0.0, 0.2, 0.5, 0.8, 0.9, 1.0]


def test_the_share_may_be_named_in_three_ways() -> None:
    as_r = [{("r" if name == "r_d" else name): value for name, value in row.items()} for row in rows()]
    as_r_g = [{**{name: value for name, value in row.items() if name != "r_d"}, "r_g": 1 - row["r_d"]} for row in rows()]
    for made in (as_r, as_r_g, [row | {"r_g": 1 - row["r_d"]} for row in rows()]):
        np.testing.assert_allclose(read(made).r_d, read(rows()).r_d, atol=1e-12)


def test_other_names_of_columns() -> None:
    theirs = {"N": "params", "D": "tokens", "r_d": "share", "loss_domain": "val/med", "loss_general": "val/web"}
    made = [{theirs[name]: str(value) for name, value in row.items()} for row in rows()]
    np.testing.assert_allclose(read(made, columns=theirs).losses("domain"), read(rows()).losses("domain"))
    with pytest.raises(BadInput, match="mapping of columns names 'loss_domian'") as refused:
        read(made, columns={"loss_domian": "val/med"})
    assert "Did you mean loss_domain?" in refused.value.mend


def test_one_loss_may_be_missing() -> None:
    table = read([{name: value for name, value in row.items() if name != "loss_general"} for row in rows()])
    assert not table.has("general")
    with pytest.raises(BadInput, match="no loss_general"):
        table.losses("general")


def test_runs_are_size_and_ratio_and_seed_or_what_the_column_says() -> None:
    assert read(rows()).n_runs == 18
    seeds = [row | {"seed": seed} for seed in (0, 1) for row in rows(seed=seed)]
    assert read(seeds).n_runs == 36
    named = [row | {"run": f"run-{number // 12}"} for number, row in enumerate(rows())]
    assert read(named).n_runs == 9


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("loss_domain", 0.0, "loss_domain is 0; it must be above 0"),
        ("loss_domain", -1.0, "must be above 0"),
        ("loss_general", float("nan"), "loss_general is nan, which is no finite number"),
        ("loss_general", "", "which is no finite number"),
        ("loss_general", None, "which is no finite number"),
        ("N", "1.8B", "N is '1.8B', which is no finite number"),
        ("N", 0, "N is 0; it must be above 0"),
        ("D", -5e8, "must be above 0"),
        ("r_d", -0.1, "a ratio is from 0 to 1"),
        ("r_d", 50, "r_d is 50: a percentage?"),
        ("r_d", 500, "a ratio is from 0 to 1"),
        ("D", 1e20, "D spans more than nine orders"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(name: str, value: Any, what: str) -> None:
    with pytest.raises(BadInput, match=what) as refused:
        read(changed(name, value))
    assert refused.value.record == (5 if value != 1e20 else 2), "for a span the row at the small end"
    assert refused.value.file == "losses.csv"


def test_shares_that_do_not_sum_to_one() -> None:
    made = [row | {"r_g": 1 - row["r_d"]} for row in rows()]
    made[3]["r_g"] = 0.7
    with pytest.raises(BadInput, match=r"record 5: r_d and r_g sum to 0\.7, not to 1"):
        read(made)


def test_a_table_in_billions_without_its_unit() -> None:
    with pytest.raises(BadInput, match="The largest model has 4 parameters") as refused:
        read([row | {"N": row["N"] / 1e9} for row in rows()])
    assert "--unit-n 1e9" in refused.value.mend


@pytest.mark.parametrize(("gone", "what"), [("N", "no column N"), ("r_d", "no column r_d")])
def test_a_missing_column(gone: str, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        read([{name: value for name, value in row.items() if name != gone} for row in rows()])
    with pytest.raises(BadInput, match="neither loss_domain nor loss_general"):
        read([{name: row[name] for name in ("N", "D", "r_d")} for row in rows()])
    with pytest.raises(BadInput, match="both r and r_d"):
        read([row | {"r": row["r_d"]} for row in rows()])
    with pytest.raises(BadInput, match="no points"):
        read([])


def test_the_same_cell_twice() -> None:
    twice = [*rows(), rows()[3] | {"loss_domain": 2.0}]
    with pytest.raises(BadInput, match=r"record 110: has the N, D and r of losses\.csv, record 5, with another loss") as refused:
        read(twice)
    assert "column seed" in refused.value.mend
    with pytest.raises(BadInput, match=r"is a copy of losses\.csv, record 5"):
        read([*rows(), rows()[3]])
    assert len(read([*(row | {"seed": 0} for row in rows()), *(row | {"seed": 1} for row in rows()[:1])])) == 109


def test_points_too_few() -> None:
    few = read(rows(counts=(1.0, 2.0), ratios=(0.1, 0.5, 0.8, 1.0)))
    with pytest.raises(BadInput, match="24 points of the domain loss can be used; a law needs 30") as refused:
        refuse_few(few.cells("domain"), L3, {}, "domain")
    assert "6 more are missing" in refused.value.mend
    with pytest.raises(BadInput, match="--without N, but the domain loss is measured at 3 sizes"):
        refuse_few(read(rows()).cells("domain"), L3.without_n(), {}, "domain")


def test_the_transient_is_left_out_and_said() -> None:
    """The run without domain text of the smallest size has its highest general loss at 1 billion tokens."""
    made = rows(noise=0.0)
    for row in made:
        if row["N"] == 0.5e9 and row["r_d"] == 0 and row["D"] <= 1e9:
            row["loss_general"] = 3.0 + row["D"] / 1e10
    kept, lines = settled(read(made))
    assert len(kept) == len(made) - 2 * 6
    assert kept.d[kept.n == 0.5].min() == 2.0
    assert kept.d[kept.n == 1.8].min() == 0.5
    assert lines == ["12 points of N = 500,000,000 up to 1,000,000,000 tokens left out: the transient, which no law knows"]
    untouched, none = settled(read(rows(noise=0.0)))
    assert len(untouched) == 108
    assert none == []
    for row in made:
        if row["r_d"] == 0:
            row["loss_general"] = 3.0 + row["D"] / 1e10
    with pytest.raises(BadInput, match="rises to its last point"):
        settled(read(made))


def test_losses_that_rise_with_the_size_in_most_cells() -> None:
    table = read(rows(noise=0.0))
    assert rising_in_n(table, "domain") == ([], 36)
    refuse_rising(table, "domain")
    backwards = [row | {"loss_domain": 4.5 - row["loss_domain"]} if row["r_d"] >= 0.5 else row for row in rows(noise=0.0)]
    wrong, n_cells = rising_in_n(read(backwards), "domain")
    assert (len(wrong), n_cells) == (18, 36)
    refuse_rising(read(backwards), "domain")  # half of the cells are not most of them
    backwards = [row | {"loss_domain": 4.5 - row["loss_domain"]} if row["r_d"] >= 0.2 else row for row in rows(noise=0.0)]
    with pytest.raises(BadInput, match=r"in 24 of 36 cells \(D = 500,000,000, r_d = 0\.2; "):
        refuse_rising(read(backwards), "domain")


def test_runs_whose_loss_rises_in_d_are_counted() -> None:
    """Those without text of the kind are left out: without it a loss rises, and no law is fitted to that."""
    table = read(rows(noise=0.0))
    assert [rising_in_d(table, which) for which in ("domain", "general")] == [(0, 15), (0, 15)]  # type: ignore[arg-type]
    risen = read([row | {"loss_general": row["loss_general"] + row["D"] * 1e-10 * (row["r_d"] >= 0.5)} for row in rows(noise=0.0)])
    assert rising_in_d(risen, "general") == (6, 15)  # 0.5 and 0.8 of three sizes; 1 has no general text
    assert rising_in_d(risen, "domain") == (0, 15)
    assert rising_in_d(risen[risen.d == risen.d.max()], "general") == (0, 0)
