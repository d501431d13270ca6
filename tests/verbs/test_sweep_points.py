"""Points of a law from run folders: which evaluations count, and which runs cannot be fitted together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.verbs._sweep_points import is_runs, points_of_runs, runs_in, write_points
from headstart.verbs.fit import fit

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
    assert "1 runs left out, whose learning rate is not constant (cosine)" in notes[0]
    with pytest.raises(BadInput, match=r"The learning rate of no run is constant \(cosine\)"):  # and not: a table is missing
        points_of_runs([cosine])


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
