"""Points of a law from run folders: which evaluations count, and which runs cannot be fitted together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.verbs._sweep import final_losses
from headstart.verbs._sweep_points import domain_figures, is_runs, points_of_runs, runs_in, write_points
from headstart.verbs.fit import fit
from headstart.verbs.plan import text_known_by

STEPS = (1, 2, 4, 8, 10, 14, 16, 20, 28, 40)


def run(
    folder: Path,
    ratio: float = 0.5,
    *,
    asked: tuple[int, ...] = (10, 14, 20, 28, 40),
    rates: tuple[float, ...] = (1e-4, 2e-3, 2e-3),
    names: tuple[str, str] = ("new", "old"),
    tokenizer: str = "abc",
    **changes: Any,
) -> Path:
    """A folder as a continued run of 40 steps of 100 tokens leaves it; the losses are those of the step."""
    folder.mkdir(parents=True)
    config = {"init": "runs/up", "mix": f"{names[0]}={ratio},{names[1]}={1 - ratio:g}", "trainer": {"evaluate_at": asked}}
    config |= {"method": {"num_layers": 2, "hidden_size": 32}}
    info = {"format_version": 1, "id": folder.name, "method": "causal-lm", "preset": "tiny", "status": "done", "seed": 3, "config": config}
    info |= {"totals": {"steps": 40, "tokens": 4000}, "decisions": {}, "verdict": {}}
    info |= {"data": [{"store": "s", "counts": {}, "tokenizer_sha256": tokenizer}]}
    (folder / "run.json").write_text(json.dumps({**info, **changes}))
    lines = [{"step": step, "probe": f"held_out_loss/{name}", "value": 5 - step / 100 + at} for step in (0, *STEPS) for at, name in enumerate(names)]
    (folder / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = [{"step": 10 * at, "tokens": 1000 * at, "learning_rate": rate} for at, rate in enumerate(rates, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    return folder


def test_the_steps_that_were_asked_for_count_with_their_tokens_and_shares(tmp_path: Path) -> None:
    records, notes = points_of_runs([run(tmp_path / "a", 0.3)])
    assert notes == []
    assert [step for _, step, _ in records] == [10, 14, 20, 28, 40]
    assert records[0] == (str(tmp_path / "a"), 10, {
        "N": 24576.0, "D": 1000.0, "r_d": 0.3, "loss_domain": pytest.approx(4.9), "loss_general": pytest.approx(5.9), "run": "a", "seed": 3,
    })  # fmt: skip


def test_without_asked_steps_those_from_an_eighth_on_count_but_the_last_which_scores_other_rows(tmp_path: Path) -> None:
    records, _ = points_of_runs([run(tmp_path / "a", asked=())])
    assert [step for _, step, _ in records] == [8, 10, 14, 16, 20, 28]


def test_a_run_whose_rate_decays_is_left_out_and_named(tmp_path: Path) -> None:
    cosine = run(tmp_path / "cosine", rates=(1e-4, 2e-3, 5e-4))
    records, notes = points_of_runs([run(tmp_path / "steady"), cosine])
    assert {record["run"] for _, _, record in records} == {"steady"}
    assert "1 run left out, whose learning rate is not constant (cosine)" in notes[0]
    with pytest.raises(BadInput, match=r"The learning rate of no run is constant \(cosine\)"):  # and not: a table is missing
        points_of_runs([cosine])


def test_a_run_at_another_constant_rate_than_its_sweep_is_left_out_and_named(tmp_path: Path) -> None:
    """As the naive run of a plan, which lies in the same folder; of another size the rate may be another."""
    sweep = [run(tmp_path / f"r{ratio}", ratio) for ratio in (0.1, 0.5)]
    naive = run(tmp_path / "naive", 1.0, rates=(4e-4, 4e-4))
    large = run(tmp_path / "large", rates=(1e-4, 1e-3, 1e-3))
    info = json.loads((large / "run.json").read_text())
    info["config"]["method"] |= {"hidden_size": 64}
    (large / "run.json").write_text(json.dumps(info))
    records, notes = points_of_runs([*sweep, naive, large])
    assert {record["run"] for _, _, record in records} == {"r0.1", "r0.5", "large"}
    assert notes == ["1 run left out, at another constant rate than most of their size (naive): their losses lie on another curve"]
    with pytest.raises(BadInput, match=r"at the constant rates 0\.002 and 0\.0004, equally many at each"):
        points_of_runs([sweep[0], naive])


def test_a_run_that_was_only_planned_is_left_out_and_named(tmp_path: Path) -> None:
    """One of an earlier version: `plan cpt` left its dry run beside its sweep."""
    look = run(tmp_path / "runs" / "look", status="stopped", totals={})
    for name in ("probes.jsonl", "metrics.jsonl"):
        (look / name).unlink()
    records, notes = points_of_runs([look, run(tmp_path / "runs" / "a")])
    assert {record["run"] for _, _, record in records} == {"a"}
    assert notes == ["1 run left out, which made no step (look)"]
    with pytest.raises(BadInput, match=r"No run has made a step \(look\)"):
        points_of_runs([look])


def test_losses_of_different_held_out_texts_are_not_fitted_together(tmp_path: Path) -> None:
    """Files that changed between two runs of one sweep: the second is measured on other windows. What a run trains on may differ."""
    of = lambda new, old: [{"part": part, "store": "s", "arrays_sha256": {"tokens": sha}} for part, sha in (("new", new), ("old", old))]  # noqa: E731
    first, same = run(tmp_path / "first", measured=of("n1", "o1")), run(tmp_path / "same", measured=of("n1", "o1"))
    assert len(points_of_runs([first, same, run(tmp_path / "of-before-parts-were-recorded")])[0]) == 15
    with pytest.raises(BadInput, match=r"another held-out text of 'old' than .*first") as refused:
        points_of_runs([first, run(tmp_path / "changed", measured=of("n1", "o2"))])
    assert refused.value.file is not None
    assert "changed" in refused.value.file


def test_a_look_without_finite_losses_is_left_out_and_named(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", asked=(10, 14, 20, 28, 40, 80))
    lines = [json.loads(line) for line in (folder / "probes.jsonl").read_text().splitlines()]
    for line in lines:
        if (line["step"], line["probe"]) in ((14, "held_out_loss/new"), (40, "held_out_loss/old")):
            line["value"] = float("nan")
    (folder / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    records, notes = points_of_runs([folder])
    assert [step for _, step, _ in records] == [10, 20, 28]
    assert notes == ["2 looks of a left out (step 14, 40): no finite losses of both texts are there"]


def test_a_sweep_run_that_ends_without_finite_losses_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder = run(tmp_path / "a")
    assert final_losses(folder, 40) == {"new": pytest.approx(4.6), "old": pytest.approx(5.6)}
    lines = [json.loads(line) for line in (folder / "probes.jsonl").read_text().splitlines()]
    for line in lines:
        if (line["step"], line["probe"]) == (40, "held_out_loss/new"):
            line["value"] = float("inf")
    (folder / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BadInput, match="no finite held-out loss of 'new' after step 40") as refused:
        final_losses(folder, 40)
    assert "lower --peak" in refused.value.mend


def test_other_parts_can_be_measured_than_are_trained_on(tmp_path: Path) -> None:
    folder = run(tmp_path / "a")
    with (folder / "probes.jsonl").open("a") as file:
        for name, value in (("new-val", 1.5), ("old-val", 2.5)):
            file.write(json.dumps({"step": 40, "probe": f"held_out_loss/{name}", "value": value}) + "\n")
    records, _ = points_of_runs([folder], measured=("new-val", "old-val"))
    assert [(step, record["loss_domain"], record["loss_general"]) for _, step, record in records] == [(40, 1.5, 2.5)]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("method", "is no continued run of causal-lm"),
        ("mix", "has no --mix"),
        ("names", "mixes med, web"),
        ("losses", "no held-out losses of 'new' and 'old'"),
        ("tokenizer", "has another tokenizer than"),
        ("size", "does not say its number of layers"),
    ],
)
def test_what_is_no_point_of_a_law_is_refused_with_the_run(what: str, said: str, tmp_path: Path) -> None:
    first = run(tmp_path / "first")
    if what == "method":
        second = run(tmp_path / "second", method="mlm")
    elif what in ("mix", "size"):
        config = json.loads((first / "run.json").read_text())["config"]
        second = run(tmp_path / "second", config=config | ({"mix": None} if what == "mix" else {"method": {}}))
    elif what == "names":
        second = run(tmp_path / "second", names=("med", "web"))
    elif what == "losses":
        second = run(tmp_path / "second")
        (second / "probes.jsonl").write_text("")
    else:
        second = run(tmp_path / "second", tokenizer="xyz")
    with pytest.raises(BadInput, match=said) as refused:
        points_of_runs([first, second])
    assert refused.value.file is not None
    assert "second" in refused.value.file


def test_the_figures_of_a_domain_are_those_of_its_pure_runs_on_the_smallest_size(tmp_path: Path) -> None:
    """k2 from the first look after 50 steps; at 5 - step / 100 it is 10 nats a thousand steps wherever one looks."""
    long = {"asked": (20, 56, 80), "totals": {"steps": 80, "tokens": 8000}}
    pure = [run(tmp_path / f"pure-{seed}", 1.0, **long) for seed in (0, 1)]
    others = [run(tmp_path / "half", 0.5, **long)]
    for folder, first in zip([*pure, *others], (6.0, 6.2, 9.0), strict=True):
        lines = [{"step": step, "probe": "held_out_loss/new", "value": first - step / 100} for step in (0, 20, 56, 80)]
        (folder / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = domain_figures([*pure, *others])
    assert found is not None
    assert (found.k1, found.k2, found.steps) == (pytest.approx(6.1), pytest.approx(10.0), 56)
    assert domain_figures(others) is None, "no run of the domain alone"
    assert domain_figures([run(tmp_path / "short", 1.0)]) is None, "no look after 50 steps"
    records = [("a", 1, {"N": 1.0, "D": 2.0, "r_d": 0.5, "loss_domain": 3.0, "loss_general": 4.0, "run": "a", "seed": 0})]
    write_points(tmp_path / "points.parquet", records, {"domain": "med", "k1": found.k1, "k2": found.k2})
    (row,) = pq.read_table(tmp_path / "points.parquet").to_pylist()
    assert row == records[0][2] | {"domain": "med", "k1": found.k1, "k2": found.k2}


def test_a_domain_is_known_by_its_text_and_not_by_a_folder(tmp_path: Path) -> None:
    entry = {"store": "s", "counts": {}}
    of = lambda new, old: [entry | {"part": part, "inputs": [{"sha256": sha}]} for part, sha in (("new", new), ("old", old))]  # noqa: E731
    known = {name: text_known_by(run(tmp_path / name, data=of(*shas))) for name, shas in (("a", "xy"), ("b", "xz"), ("c", "yx"))}
    assert known["a"] == known["b"] != known["c"]


def test_a_folder_of_runs_is_found_and_a_table_round_trips(tmp_path: Path) -> None:
    for ratio in (0.1, 0.5):
        run(tmp_path / "sweep" / "runs" / f"r{ratio}", ratio)
    assert [path.name for path in runs_in(tmp_path / "sweep")] == ["r0.1", "r0.5"]
    assert is_runs(tmp_path / "sweep")
    assert not is_runs(tmp_path)
    records, _ = points_of_runs(runs_in(tmp_path / "sweep"))
    write_points(tmp_path / "points.parquet", records)
    assert pq.read_table(tmp_path / "points.parquet").to_pylist() == [record for _, _, record in records]


def test_fit_takes_runs_alone_and_says_when_they_are_too_few(tmp_path: Path) -> None:
    folder = run(tmp_path / "runs" / "a")
    with pytest.raises(BadInput, match="5 points of the domain loss can be used; a law needs 30"):
        fit("dcpt-law", tmp_path / "runs", without="N", out=tmp_path / "law", say=lambda line: None)
    (tmp_path / "losses.csv").write_text("N,D,r_d,loss_domain,loss_general\n")
    with pytest.raises(UsageError, match="is a table"):
        fit("dcpt-law", [folder, tmp_path / "losses.csv"], out=tmp_path / "law", say=lambda line: None)
    with pytest.raises(UsageError, match="runs say what they are"):
        fit("dcpt-law", folder, unit_n=1e9, out=tmp_path / "law", say=lambda line: None)
