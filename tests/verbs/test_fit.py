"""`fit`: from a table of losses to a law, its rivals, answers and a folder; what is refused, and what is said."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headstart
from headstart.cli.main import main
from headstart.core.errors import BadInput, UsageError
from headstart.planning.dcpt_law.forms import CROSS_DOMAIN, Cells, Law
from headstart.verbs._fit_settings import FitSettings
from headstart.verbs.fit import FittedLaw, read_table
from tests.planning.tables import COUNTS, DOM, GEN, RATIOS, SIZES, rows, write

BEFORE = GEN.loss(1.8, 10, 1.0)
ASKED: dict[str, Any] = {"limit": 0.03, "general_loss": BEFORE, "at_n": 1.8e9, "at_d": 1e10}


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("points") / "losses.csv", rows(noise=0.0005))


def one_size(tmp_path: Path, *without: str) -> Path:
    """A table that is quickly fitted, without some of its columns."""
    return write(tmp_path / "one.csv", [{name: row[name] for name in row if name not in without} for row in rows(sizes=(1.8,))])


def fit(points: Path | list[Path], tmp_path: Path, **settings: Any) -> tuple[FittedLaw, str]:
    """The law, and what was said; no bootstrap unless asked for."""
    said: list[str] = []
    law = headstart.fit("dcpt-law", points, out=tmp_path / "law", say=said.append, **{"draws": 0} | settings)
    return law, "\n".join(said)


@pytest.mark.slow
def test_a_table_of_two_losses(losses: Path, tmp_path: Path) -> None:
    held_out = write(tmp_path / "more.csv", rows(ratios=(0.35, 0.65), seed=5))
    law, said = fit(losses, tmp_path, **ASKED, draws=8, held_out=held_out, domain_tokens=5e7)
    assert law.answers[0].figures["r_d"].value == pytest.approx(0.6986, abs=0.02)
    low, high = law.answers[0].figures["r_d"].low, law.answers[0].figures["r_d"].high
    assert low is not None
    assert high is not None
    assert low < high
    for words in (
        "108 points of 18 runs: 3 sizes", "domain loss = E + A/N^alpha", "general loss = E + A/N^alpha", "interpolation", "held-out ratios",
        "with the 18 points of r_g = 0, which it leaves out", "held out, domain loss: 36 points", "(of the ratios measured there: 0.5)",
        "! extrapolation: factor",
    ):  # fmt: skip
        assert words in said
    assert {path.name for path in law.folder.iterdir()} == {"law.json", "predictions.csv", "bootstrap.csv", "domain.svg", "general.svg"}
    record = json.loads((law.folder / "law.json").read_text())
    assert record == json.loads(json.dumps(law.info))
    assert [answer["question"] for answer in record["answers"]] == [answer.question for answer in law.answers]
    with (law.folder / "predictions.csv").open() as file:
        used = [row["used"] for row in csv.DictReader(file)]
    assert {name: used.count(name) for name in set(used)} == {"fitted": 108 + 90, "left out: no general text": 18, "held out": 72}


@pytest.mark.slow
def test_a_parquet_with_other_names_and_units(tmp_path: Path) -> None:
    made = rows(sizes=(1.8,))
    table = pa.table({
        "billions": [row["N"] / 1e9 for row in made], "tokens": [row["D"] / 1e6 for row in made], "mix": [row["r_d"] for row in made],
        "val/med": [row["loss_domain"] for row in made],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "runs.parquet")
    (tmp_path / "names.yaml").write_text("N: billions\nD: tokens\nr_d: mix\nloss_domain: val/med\n")
    settings = {"columns": tmp_path / "names.yaml", "unit_n": 1e9, "unit_d": 1e6, "without": "N"}
    law, said = fit(tmp_path / "runs.parquet", tmp_path, **settings, at_d=10_000, at_r=0.5)
    assert list(law.laws) == ["domain"]
    assert law.answers[0].figures["domain_loss"].value == pytest.approx(DOM.loss(1.8, 10, 0.5), rel=0.002)
    assert "N = 1.8" in said


def test_columns_that_are_no_list_of_names_are_mended_with_one(tmp_path: Path) -> None:
    table = one_size(tmp_path)
    with pytest.raises(BadInput, match=r"one\.csv: holds no settings\.\nWrite a line for each column that is called otherwise: `loss_domain: val"):
        fit(table, tmp_path, columns=table)


@pytest.mark.slow
def test_one_size_needs_the_flag_and_no_size(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="one size, which cannot tell how it falls in N"):
        fit(one_size(tmp_path), tmp_path)
    law, _ = fit(one_size(tmp_path), tmp_path, without="N", limit=0.03, general_loss=BEFORE, at_d=1e10)
    assert "A" not in law.laws["domain"].law.parameters
    assert law.answers[0].figures["r_d"].value == pytest.approx(0.6986, abs=0.02)


@pytest.mark.slow
def test_given_parameters_are_said(tmp_path: Path) -> None:
    law, said = fit(one_size(tmp_path, "loss_general"), tmp_path, without="N", fix=["gamma=0.4"])
    assert law.laws["domain"].law["gamma"] == 0.4
    assert "gamma 0.4 (given)" in said
    with pytest.raises(UsageError, match="no parameter 'delta' to fix"):
        fit(one_size(tmp_path), tmp_path, without="N", fix=["delta=0.4"])


def test_tables_of_one_text_are_fitted_together_whether_or_not_they_name_it(tmp_path: Path) -> None:
    """`plan dcpt` writes domain, k1 and k2 where it knows them, which one sweep of a text may and another may not."""
    named = {"domain": "med-1", "k1": 3.0, "k2": 2.0}
    before = write(tmp_path / "before.csv", rows(ratios=(0.1, 0.5)))
    after = write(tmp_path / "after.csv", [row | named for row in rows(ratios=(0.2, 0.8))])
    together, _ = read_table(FitSettings(points=(before, after)))
    assert (len(together), together.topic, together.k1) == (72, None, None)
    chosen, _ = read_table(FitSettings(points=(before, after), domain="med-1"))
    assert len(chosen) == 36
    with pytest.raises(BadInput, match=r"before\.csv, record 2: k1 is None"):
        read_table(FitSettings(points=(before, after), across_domains=True))
    other = write(tmp_path / "other.csv", [row | named | {"domain": "law-2"} for row in rows(ratios=(0.3,))])
    with pytest.raises(UsageError, match="2 domains: law-2, med-1"):
        read_table(FitSettings(points=(before, after, other)))


def test_a_folder_without_runs_and_a_place_that_is_not_there_are_called_so(tmp_path: Path) -> None:
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    for name, what in (("empty", "holds no run"), ("nowhere", "is not there")):
        with pytest.raises(BadInput, match=what):
            fit(tmp_path / name, tmp_path)


def test_a_general_loss_that_training_lowers_everywhere_makes_an_empty_question(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"before training, 3\.5, is above that after it at every ratio") as refused:
        fit(one_size(tmp_path), tmp_path, without="N", limit=0.03, general_loss=3.5, at_d=1e10)
    assert "not converged on the general text" in refused.value.mend


@pytest.mark.slow
def test_losses_that_rise_with_the_size_are_fitted_only_when_asked(tmp_path: Path) -> None:
    made = [row | {"loss_domain": 4.5 - row["loss_domain"]} for row in rows(sizes=(0.5, 1.8))]
    table = write(tmp_path / "backwards.csv", [{name: row[name] for name in ("N", "D", "r_d", "loss_domain")} for row in made])
    with pytest.raises(BadInput, match="domain loss of the largest model is above that of the smallest in 36 of 36 cells"):
        fit(table, tmp_path, fix=["alpha=0.2"])
    law, said = fit(table, tmp_path, fix=["alpha=0.2"], allow_nonmonotone=True)
    assert len(law.warnings) == 2  # of the second: turned round, it rises in D too
    assert "note: the domain loss of the largest model" in said
    assert re.search(r"note: the domain loss ends higher than it began in \d+ of 10 runs", said)  # noise decides at r_d = 0.1


def test_the_transient_is_left_out_unless_it_is_kept(tmp_path: Path) -> None:
    """General loss rises until 0.5 billion tokens at every ratio."""
    made = rows(sizes=(1.8,), counts=(0.25, 0.5, 1.0, 2.0), noise=0.0)
    table = write(tmp_path / "early.csv", [row | {"loss_general": row["loss_general"] + {0.25e9: 0.1, 0.5e9: 0.3}.get(row["D"], 0)} for row in made])
    settled, warnings = read_table(FitSettings(points=(table,), without="N"))
    assert len(settled) == 12
    assert warnings == ["12 points of N = 1,800,000,000 up to 500,000,000 tokens left out: the transient, which no law knows"]
    kept, warnings = read_table(FitSettings(points=(table,), without="N", keep_transient=True))
    assert len(kept) == 24
    assert warnings == []


def in_domains(names: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
    truth = Law(CROSS_DOMAIN, {**DOM.parameters, "E": 0.6, "F": 0.3, "mu": 1.5, "w2": 2.0})
    grid = [(n, d, r) for n in SIZES for r in RATIOS for d in COUNTS[::2]]
    n, d, r = np.array(grid).T
    return [
        {"N": n[at] * 1e9, "D": d[at] * 1e9, "r_d": r[at], "loss_domain": loss, "domain": name, "k1": k1, "k2": k2}
        for name, (k1, k2) in names.items()
        for at, loss in enumerate(truth.predict(Cells.of(n, d, r, k1, k2)))
    ]


KNOWN = {"code": (1.30, 0.060), "math": (1.75, 0.110), "law": (2.10, 0.090), "chemistry": (2.40, 0.150)}


def test_several_domains_are_never_mixed(tmp_path: Path) -> None:
    table = write(tmp_path / "domains.csv", in_domains(KNOWN))
    with pytest.raises(UsageError, match="of 4 domains: chemistry, code, law, math"):
        fit(table, tmp_path)
    with pytest.raises(BadInput, match="no domain 'cooking' in the points"):
        fit(table, tmp_path, domain="cooking")
    with pytest.raises(BadInput, match="of 2 domains; the cross-domain law needs 3"):
        fit(write(tmp_path / "two.csv", in_domains(dict(list(KNOWN.items())[:2]))), tmp_path, across_domains=True)


@pytest.mark.slow
def test_a_new_domain_from_two_figures(tmp_path: Path) -> None:
    table = write(tmp_path / "domains.csv", in_domains(KNOWN))
    law, _ = fit(table, tmp_path, across_domains=True, k1=2.0, k2=0.125, at_n=1.8e9, at_d=1e10, at_r=0.5)
    assert law.answers[0].figures["domain_loss"].value == pytest.approx(1.896719, abs=1e-5)
    assert law.laws["domain"].law["w2"] == pytest.approx(2.0, abs=1e-3)
    assert law.answers[0].warnings == ("extrapolation: factor 1.25 above the largest D measured",)
    assert law.laws["domain"].rivals == ()


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"limit": 0.03}, "--limit needs --general-loss and --at-d"),
        ({"limit": 3.0, "general_loss": 2.5, "at_d": 1e10}, "--limit is 3"),
        ({"target": 1.9}, "--target needs --at-r"),
        ({"flops": 1e20}, "--flops needs --at-r"),
        ({"sizes": [1e9]}, "--sizes needs --flops"),
        ({"target": 1.9, "at_r": 0.0}, "--at-r is 0"),
        ({"at_r": 0.5}, "--at-r alone asks nothing"),
        ({"at_d": 1e9}, "--at-d alone asks nothing"),
        ({"k1": 2.0}, "--k1 needs --k2 and --at-d and --at-r"),
        ({"k1": 2.0, "k2": 0.1, "at_d": 1e9, "at_r": 0.5}, "--k1 and --k2 are of the cross-domain law"),
        ({"across_domains": True, "flops": 1e20, "at_r": 0.5}, "answers no question but --at-r"),
        ({"across_domains": True, "without": "N"}, "is fitted whole"),
        ({"at_r": 1.5}, "--at-r is 1.5"),
        ({"at_n": -1}, "--at-n is -1"),
        ({"fix": ["alpha"]}, "--fix alpha"),
        ({"fix": ["alpha=x"]}, "--fix alpha=x"),
        ({"draws": -1}, "--draws is -1"),
    ],
)
def test_a_question_that_lacks_something(settings: dict[str, Any], what: str, losses: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=what):
        fit(losses, tmp_path, **settings)
    assert not (tmp_path / "law").exists()


def test_several_sizes_need_the_size_of_the_plan(losses: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs --at-n: the points are of several sizes"):
        fit(losses, tmp_path, limit=0.03, general_loss=BEFORE, at_d=1e10)


@pytest.mark.slow
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = one_size(tmp_path, "loss_general"), tmp_path / "law"
    code = main(["fit", "dcpt-law", str(table), "--without", "N", "--draws", "0", "--at-d", "1e10", "--at-r", "0.5", "--json", "--out", str(out)])
    printed = capsys.readouterr()
    assert code == 0
    assert json.loads(printed.out) == json.loads((out / "law.json").read_text())
    assert "domain loss = E + B r^eta/D^beta" in printed.err
    assert main(["fit", "dcpt-law", str(table), "--limt", "0.03"]) == 2
    assert "There is no flag --limt." in capsys.readouterr().err
    assert main(["fit", "dcpt", str(table)]) == 2
    assert "There is no law 'dcpt'." in capsys.readouterr().err
    assert main(["fit", "dcpt-law", str(tmp_path / "none.csv")]) == 3
    assert main(["fit", "dcpt-law"]) == 2


def test_it_answers_without_torch() -> None:
    code = "import sys; from headstart.cli import fit; import headstart.verbs.fit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
