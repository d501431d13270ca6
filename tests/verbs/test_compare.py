"""`compare` on real runs whose order is known by construction: one network has read documents on the topics of the labels, another has read noise."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import tyro

import headstart
from headstart.cli import compare as cli
from headstart.core.config import flatten
from headstart.core.errors import BadInput, UsageError
from headstart.core.run import read_lines
from headstart.verbs import _compare_run
from headstart.verbs._compare_arms import read_source
from headstart.verbs.compare import CompareSettings, Comparison
from tests.at import At
from tests.corpus import ADJECTIVES, PLACES, TOPICS, documents, labelled, write_corpus, write_jsonl
from tests.running import TINY, start
from tests.running import headstart as command

SETTINGS = TINY | {
    "optimizer.learning_rate": 1e-2, "trainer.log_every": 20, "trainer.evaluate_every": 200, "trainer.checkpoint_every": 100,
    "trainer.keep_checkpoints": 4, "text.held_out_share": 0.2,
}  # fmt: skip
STEPS = 300
PROBE: dict[str, Any] = {"measure": "linear-probe", "seeds": 4}


@dataclasses.dataclass
class Bench:
    """What the tests share. Read it, do not write into it."""

    folder: Path
    reader: Path  # 300 steps on documents of the four topics, exports at 100, 200, 300
    noise: Path  # as many on the same words in random order
    short: Path  # 100 steps on the topics
    labels: Path
    test: Path


def pretrained(data: Path, out: Path, **settings: Any) -> Path:
    return headstart.pretrain("causal-lm", data, say=lambda line: None, out=out, **SETTINGS | {"budget.steps": STEPS} | settings).folder


def write_noise(folder: Path) -> Path:
    """As many words as the corpus, of the same vocabulary; which stands with which is chance."""
    rng = random.Random(5)
    words = [word for nouns, verbs in TOPICS.values() for word in nouns + verbs] + ADJECTIVES + " ".join(PLACES).split() + ["the", "and"] * 10
    lines = ["\n".join(" ".join(rng.choices(words, k=8)) for _ in range(6)) for _ in range(320)]
    folder.mkdir(parents=True)
    (folder / "noise.txt").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("compare")
    corpus = write_corpus(folder / "corpus", 320)
    return Bench(
        folder,
        pretrained(corpus, folder / "reader"),
        pretrained(write_noise(folder / "noisy"), folder / "noise"),
        pretrained(corpus, folder / "short", **{"budget.steps": 100}),
        write_jsonl(folder / "labels.jsonl", labelled(200, seed=1)),
        write_jsonl(folder / "test.jsonl", labelled(80, seed=2)),
    )


@pytest.fixture(scope="module")
def compared(bench: Bench) -> Comparison:
    return compare(bench, [bench.reader, bench.noise], bench.folder / "compared")[0]


def compare(bench: Bench, runs: list[Path], out: Path, **settings: Any) -> tuple[Comparison, list[str]]:
    said: list[str] = []
    chosen = {"labels": bench.labels, "out": out, **PROBE, **settings}
    return headstart.compare(runs, say=said.append, **chosen), said


# the verdict


def test_the_run_that_read_the_topics_wins_at_equal_compute(bench: Bench, compared: Comparison) -> None:
    info = compared.info
    assert info["winner"] == "reader"
    assert info["sentence"].startswith("reader wins at equal compute: reader +")
    names = ["reader", "noise", "random start (reader)", "random start (noise)"]  # other texts, another tokenizer, another network
    assert [arm["arm"] for arm in info["arms"]] == names
    assert info["equal_compute"]["equal"]
    assert info["compared"][0]["arm"] == "reader"
    pairs = {(one["a"], one["b"]): one for one in info["comparisons"]}
    assert set(pairs) == {("reader", "noise"), ("reader", "random start (reader)"), ("noise", "random start (noise)")}
    assert pairs["reader", "noise"]["verdict"] == "better"
    assert all(one["p_holm"] >= one["p"] for one in pairs.values())
    assert all(-1 <= one["ci95"][0] <= one["difference"] <= one["ci95"][1] <= 1 for one in pairs.values())


def test_a_point_has_the_flops_and_seconds_of_its_checkpoint(bench: Bench, compared: Comparison) -> None:
    reader = compared.info["arms"][0]
    most = [point for point in reader["points"] if point["labels"] == compared.info["data"]["train_records"]]
    assert [point["step"] for point in most] == [100, 200, 300]
    lines = {line["step"]: line for line in read_lines(bench.reader / "metrics.jsonl")}
    assert [point["flops"] for point in most] == [lines[step]["flops"] for step in (100, 200, 300)]
    assert most[0]["wall_s"] == pytest.approx(lines[100]["wall_s"])
    assert [point["final"] for point in most] == [False, False, True]
    assert all(len(point["values"]) == 1 and len(point["values"][0]) == 4 for point in reader["points"])
    assert compared.info["arms"][2]["points"][-1]["flops"] == 0.0


def test_the_head_start_is_worth_labels(compared: Comparison) -> None:
    worth = {row["arm"]: row for row in compared.info["worth"]}
    assert compared.info["plan"]["labels"] == [17, 50, compared.info["data"]["train_records"]]
    assert worth["reader"]["random_labels"] is None or worth["reader"]["random_labels"] > worth["reader"]["labels"]
    assert worth["reader"]["sentence"].startswith("reader: A random start needs")


def test_what_lies_in_the_folder(compared: Comparison) -> None:
    assert json.loads((compared.folder / "comparison.json").read_text()) == compared.info
    assert compared.info["kind"] == "comparison"
    assert compared.info["status"] == "done"
    svg = (compared.folder / "comparison.svg").read_text()
    for word in ("reader", "noise", "random start", f"accuracy with {compared.info['data']['train_records']} labels", "pre-training FLOPs"):
        assert word in svg, word


def test_the_lines_for_a_person(bench: Bench, tmp_path: Path) -> None:
    _, said = compare(bench, [bench.reader, bench.noise], tmp_path / "out")
    text = "\n".join(said)
    assert said[0] == f"Question: which of reader, noise is best, and is it better than a random start? Judged by the labels in {bench.labels}."
    assert sum(line.startswith("Answer: reader wins at equal compute: ") for line in said) == 1
    plan = next(i for i, line in enumerate(said) if line.startswith("Plan: "))
    assert "4 seeds, labels 17, 50, 15" in said[plan]
    assert not any(", 17 labels: accuracy" in line for line in said[:plan]), "the plan is said before its points are measured"
    assert "All runs had" in text
    assert "not the seed of the pre-training" in text, "single runs: the interval covers less than it seems"
    assert "The seed of the pre-training is not covered for reader, noise" in text
    assert "test records" in next(line for line in said if "in the pre-training text of reader" in line)
    assert re.search(r"None of the \d+ test records stands in the pre-training text of noise", text)
    assert "Always saying the commonest of the 4 classes gives accuracy 0.25" in text
    assert said[-1].startswith(f"Fine-tune: headstart finetune classification --init {bench.reader}")
    assert f"from_pretrained('{bench.reader / 'export'}')" in said[-2]


@pytest.mark.slow
def test_fine_tuning_finds_the_same_winner_and_its_command_works(bench: Bench, tmp_path: Path) -> None:
    comparison, said = compare(
        bench, [bench.reader, bench.noise], tmp_path / "out", measure="finetune", seeds=3, test=bench.test, counts=[16], **{"finetune.epochs": 2.0}
    )
    arms = {arm["arm"]: arm for arm in comparison.info["arms"]}
    small = {name: next(point["mean"] for point in arm["points"] if point["labels"] == 16) for name, arm in arms.items()}
    assert small["reader"] > max(small["noise"], small["random start (reader)"])
    assert all(len(arm["tried"]) == 2 and arm["learning_rate"] in map(float, arm["tried"]) for arm in arms.values()), "equal tuning effort"
    assert "and test records; not the seed" in comparison.info["comparisons"][0]["covers"]
    assert any("80 test records" in line and "in the labelled training records" in line for line in said)
    words = comparison.info["commands"]["finetune"].split()
    done = command(*words[1:], "--seeds", "1", "--no-baseline")
    assert done.returncode == 0, done.stderr


# equal compute


def test_a_longer_run_is_read_at_the_checkpoint_of_equal_flops(bench: Bench, tmp_path: Path) -> None:
    comparison, said = compare(bench, [bench.reader, bench.short], tmp_path / "out", counts=[50, 400])
    there = comparison.info["data"]["train_records"]
    beyond = f"--counts 400 cannot be measured: there are {there} labelled training records, which are the last point of the curve."
    assert beyond in said
    assert beyond in comparison.info["notes"]
    equal = comparison.info["equal_compute"]
    assert (equal["equal"], equal["how"], equal["ratio"]) == (True, "at checkpoints", pytest.approx(3.0))
    rows = {row["arm"]: row for row in comparison.info["compared"]}
    assert rows["reader"]["how"] == "at a checkpoint"
    assert rows["reader"]["flops"] == rows["short"]["flops"]
    at_100 = next(point for point in comparison.info["arms"][0]["points"] if point["step"] == 100)
    assert at_100["labels"] == comparison.info["data"]["train_records"]
    assert rows["reader"]["value"] == at_100["mean"]
    assert any("differ by a factor of 3 " in line for line in said)


def test_without_that_checkpoint_it_is_said_and_no_winner_named(bench: Bench, tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    shutil.copytree(bench.reader, longer)
    shutil.rmtree(longer / "checkpoints" / "step-00000100")
    comparison, _ = compare(bench, [longer, bench.short], tmp_path / "out")
    info = comparison.info
    assert (info["equal_compute"]["equal"], info["equal_compute"]["how"]) == (False, "not possible")
    assert info["comparisons"][0]["equal_compute"] is False
    assert info["comparisons"][0]["flops_ratio"] == pytest.approx(3.0)
    assert info["winner"] is None
    assert "--budget.flops" in info["equal_compute"]["sentence"]


def test_exports_checkpoints_and_foreign_folders_can_be_compared(bench: Bench, tmp_path: Path) -> None:
    shutil.copytree(bench.reader / "export", tmp_path / "foreign")
    early = bench.reader / "checkpoints" / "step-00000100" / "export"
    comparison, _ = compare(bench, [bench.reader / "export", early, tmp_path / "foreign"], tmp_path / "out", counts=[50])
    arms = {arm["arm"]: arm for arm in comparison.info["arms"]}
    assert arms["reader/export"]["points"][0]["step"] == STEPS
    assert arms["step-00000100/export"]["points"][0]["step"] == 100
    assert arms["foreign"]["kind"] == "model"
    assert arms["foreign"]["points"][0]["flops"] is None
    assert comparison.info["equal_compute"]["how"] == "unknown"
    assert arms["foreign"]["points"][0]["values"] == arms["reader/export"]["points"][0]["values"], "the same weights, the same points"


def test_a_run_that_was_stopped_between_two_lines_of_its_log_has_known_compute(bench: Bench, tmp_path: Path) -> None:
    """The runs of a trial are such: they stop where the FLOPs are equal."""
    stopped = pretrained(bench.folder / "corpus", tmp_path / "stopped", **{"trainer.stop_at": 47})
    (export,) = read_source(stopped).exports
    lines = list(read_lines(stopped / "metrics.jsonl"))
    assert lines[-1]["step"] < 47
    assert (export.step, export.final) == (47, True)
    assert export.flops == pytest.approx(47 / lines[-1]["step"] * lines[-1]["flops"])


# seeds of the pre-training


@pytest.mark.slow
def test_runs_that_differ_in_the_seed_alone_are_one_arm_whose_spread_decides(bench: Bench, tmp_path: Path) -> None:
    runs = [pretrained(bench.folder / "corpus", tmp_path / f"few-{seed}", seed=seed, **{"budget.steps": 40}) for seed in range(3)]
    comparison, said = compare(bench, runs, tmp_path / "out", counts=[50])
    first = comparison.info["arms"][0]
    assert first["arm"] == "few"
    assert first["pretraining_seeds"] == [0, 1, 2]
    assert len(first["points"][0]["values"]) == 3
    assert comparison.info["comparisons"][0]["covers"] == "pre-training seeds, random starts and test records"
    assert not any("The seed of the pre-training is not covered" in line for line in said)


# killed and started again


def test_the_same_command_measures_nothing_twice(bench: Bench, compared: Comparison, tmp_path: Path) -> None:
    shutil.copytree(compared.folder, tmp_path / "out")
    before = (tmp_path / "out" / "points.jsonl").read_bytes()
    again, _ = compare(bench, [bench.reader, bench.noise], tmp_path / "out")
    assert (tmp_path / "out" / "points.jsonl").read_bytes() == before
    assert again.info["comparisons"] == compared.info["comparisons"]
    more, _ = compare(bench, [bench.reader, bench.noise], tmp_path / "out", seeds=5)
    assert (tmp_path / "out" / "points.jsonl").read_bytes().startswith(before)
    first = more.info["arms"][0]["points"][-1]["values"][0]
    assert first[:4] == compared.info["arms"][0]["points"][-1]["values"][0]


def test_other_labels_in_the_same_folder_are_other_points(bench: Bench, compared: Comparison, tmp_path: Path) -> None:
    shutil.copytree(compared.folder, tmp_path / "out")
    turned = [record | {"text": " ".join(reversed(record["text"].split()))} for record in labelled(200, seed=1)]  # the same draws of other texts
    others = write_jsonl(tmp_path / "others.jsonl", turned)
    again, _ = compare(bench, [bench.reader, bench.noise], tmp_path / "out", labels=others)
    assert again.info["comparisons"] != compared.info["comparisons"]


@pytest.mark.slow
def test_a_kill_loses_no_point(bench: Bench, tmp_path: Path) -> None:
    arguments = ["compare", bench.short, "--labels", bench.labels, "--seeds", "3", "--counts", "16", "--finetune.epochs", "1"]
    points, log = tmp_path / "killed" / "points.jsonl", tmp_path / "log"
    process = start(*arguments, "--out", tmp_path / "killed", log=log, at=At((signal.SIGKILL,), "points.jsonl", 6))
    assert process.wait(timeout=240) == -signal.SIGKILL
    kept = points.read_bytes()
    assert kept.count(b"\n") == 5
    with points.open("ab") as file:
        file.write(b'{"step": 0, "key": "half')  # what a kill in the middle of a line leaves
    done = command(*arguments, "--out", tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    assert points.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1]), "nothing known is measured again"
    whole = command(*arguments, "--out", tmp_path / "whole", "--json")
    expected, found = json.loads(whole.stdout), json.loads((tmp_path / "killed" / "comparison.json").read_text())
    for one, other in zip(found["arms"], expected["arms"], strict=True):
        assert one["points"] == other["points"]
    assert found["comparisons"] == expected["comparisons"]


# leaks


def test_labels_that_stand_in_the_pre_training_text_are_said(bench: Bench, tmp_path: Path) -> None:
    read = [{"text": text.splitlines()[0], "label": list(TOPICS)[i % 4]} for i, text in enumerate(documents(160))]
    labels = write_jsonl(tmp_path / "read.jsonl", [*read, read[0], read[1]])
    _, said = compare(bench, [bench.reader, bench.noise], tmp_path / "out", labels=labels, counts=[50])
    sentence = next(line for line in said if "stand in the pre-training text of reader" in line)
    assert int(sentence.split()[0]) > 100
    assert any("because they repeat the text of another one: " in line for line in said)


def test_a_test_file_that_is_the_training_file_is_said(bench: Bench, tmp_path: Path) -> None:
    comparison, _ = compare(bench, [bench.reader], tmp_path / "out", test=bench.labels, counts=[50])
    assert any("200 of 200 test records (100.0 %) stand in the labelled training records" in line for line in comparison.info["leaks"])


# without labels


def test_without_labels_halves_of_documents_are_the_weaker_evidence(bench: Bench, tmp_path: Path) -> None:
    comparison, said = compare(bench, [bench.reader, bench.short, bench.noise], tmp_path / "out", labels=None)
    info = comparison.info
    assert info["evidence"] == "no labels"
    assert any("weaker evidence" in line for line in said)
    arms = {arm["arm"]: arm for arm in info["arms"]}
    assert all(0 <= arm["points"][-1]["mean"] <= 1 and arm["rankme"] >= 1 for arm in arms.values())
    assert arms["reader"]["loss"]["comparable"]
    assert arms["short"]["loss"]["comparable"]
    assert arms["reader"]["loss"]["value"] < arms["short"]["loss"]["value"]
    assert not arms["noise"]["loss"]["comparable"], "another text has another loss"
    assert "documents" in info["comparisons"][0]["covers"]
    assert any("held-out halves" in line and "noise" in line for line in info["leaks"])


# budgets


def test_minutes_that_hold_no_verdict_are_refused_with_those_that_do(bench: Bench, tmp_path: Path) -> None:
    """They once cut the labels, which saved no time: the answer came late, and from fewer labels."""
    with pytest.raises(UsageError, match=r"0\.001 minutes will not do for a verdict: 3 seeds of 4 arms on all labels") as refused:
        compare(bench, [bench.reader, bench.noise], tmp_path / "out", measure="finetune", **{"budget.minutes": 0.001})
    assert not (tmp_path / "out" / "points.jsonl").exists(), "before anything is measured"
    named = re.search(r"--budget.minutes (\S+),", str(refused.value))
    assert named is not None
    assert 0.01 < float(named[1]) < 60


def test_minutes_that_turn_out_too_few_name_those_that_go_on_from_what_was_measured(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compare_run, "time_a_score", lambda *bench: (1e-6, 1))  # a machine that was quicker when it was asked
    told = {"measure": "finetune", "finetune.learning_rates": (1e-3,), "budget.minutes": 1e-4}
    for _ in range(2):
        with pytest.raises(UsageError, match=r"What was measured is kept: the same command with --budget\.minutes \S+ goes on from"):
            compare(bench, [bench.noise], tmp_path / "out", **told)
        kept = (tmp_path / "out" / "points.jsonl").read_text().splitlines()
        assert len(kept) == 2, "one of each arm, once"


@pytest.mark.slow
def test_a_short_budget_keeps_three_seeds_and_all_labels(bench: Bench, tmp_path: Path) -> None:
    slow = {"measure": "finetune", "seeds": 40, "finetune.learning_rates": (1e-3,)}
    comparison, said = compare(bench, [bench.reader], tmp_path / "out", **slow, **{"budget.minutes": 0.2})
    plan = comparison.info["plan"]
    assert 3 <= plan["seeds"] < 40
    assert max(plan["labels"]) == comparison.info["data"]["train_records"]
    assert any(line.startswith("Left out to fit 0.2 minutes: ") and "of 40 seeds" in line for line in said)


# documents of records


def test_records_of_a_document_stay_together(bench: Bench, tmp_path: Path) -> None:
    records = [record | {"page": str(i // 8)} for i, record in enumerate(labelled(200, seed=1))]
    labels = write_jsonl(tmp_path / "pages.jsonl", records)
    comparison, _ = compare(bench, [bench.reader], tmp_path / "out", labels=labels, group_field="page", counts=[50])
    assert "documents whole" in comparison.info["data"]["split"]
    with pytest.raises(BadInput, match=r"has no field 'chapter', only .*'page'\.\nName that of the document: --group-field"):
        compare(bench, [bench.reader], tmp_path / "other", labels=labels, group_field="chapter")


# what is refused


@pytest.mark.parametrize(
    ("runs", "settings", "error", "says"),
    [
        (["nowhere"], {}, BadInput, "is not a folder"),
        (["empty"], {}, BadInput, "is neither a run"),
        (["reader", "reader"], {}, UsageError, "is given twice"),
        ([], {}, UsageError, "No run is given"),
        (["reader"], {"task": "tagging"}, UsageError, "no comparison on the task 'tagging'"),
        (["reader"], {"task": "regression"}, UsageError, "A linear probe is for classification"),
        (["reader"], {"labels": None, "test": Path("x.jsonl")}, UsageError, "--test needs --labels"),
        (["reader"], {"seeds": 0}, UsageError, "--seeds is 0"),
        (["reader"], {"budget.minutes": 0.0}, UsageError, "--budget.minutes is 0"),
        (["reader"], {"counts": [3]}, UsageError, "Give counts from 4 to 15"),
        (["reader"], {"finetune.text_field": "body"}, UsageError, "Give --text-field"),
        (["reader"], {"labels": Path("one_class.jsonl")}, BadInput, "has only the class"),
        (["reader"], {"labels": Path("few.jsonl")}, BadInput, "too few to learn"),
        (["reader"], {"labels": Path("single.jsonl")}, BadInput, "one record of the class 'lonely'"),
        (["foreign"], {"labels": None}, UsageError, "no run whose prepared text is still there"),
    ],
)
def test_what_is_refused_and_how_to_mend_it(
    bench: Bench, tmp_path: Path, runs: list[str], settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(bench.reader / "export", tmp_path / "foreign")
    write_jsonl(tmp_path / "one_class.jsonl", [record | {"label": "x"} for record in labelled(40, seed=1)])
    write_jsonl(tmp_path / "few.jsonl", labelled(8, seed=1))
    write_jsonl(tmp_path / "single.jsonl", [*labelled(40, seed=1), {"text": "alone", "label": "lonely"}])
    known = {"reader": bench.reader}
    chosen = {name: tmp_path / value if isinstance(value, Path) and name in ("labels", "test") else value for name, value in settings.items()}
    with pytest.raises(error, match=says):
        compare(bench, [known.get(run, tmp_path / run) for run in runs], tmp_path / "out", **chosen)
    assert not (tmp_path / "out").exists(), "refused before anything is written"


# the command line


def test_python_and_command_line_have_the_same_settings() -> None:
    settings = cli.parse(["a", "b", "--labels", "l.jsonl", "--seeds", "3", "--budget.minutes", "2", "--finetune.epochs", "4", "--counts", "8", "16"])
    chosen = {"labels": Path("l.jsonl"), "seeds": 3, "budget.minutes": 2.0, "finetune.epochs": 4.0, "counts": (8, 16)}
    assert flatten(settings) == flatten(CompareSettings()) | {"runs": (Path("a"), Path("b"))} | chosen
    assert cli.parse(["--runs", "a", "b"]).runs == (Path("a"), Path("b"))
    assert flatten(tyro.cli(CompareSettings, args=[])) == flatten(CompareSettings())


@pytest.mark.slow
def test_the_command_prints_a_table_and_json(bench: Bench, tmp_path: Path) -> None:
    flags = ["--labels", bench.labels, "--measure", "linear-probe", "--seeds", "4", "--out", tmp_path / "out", "--json"]
    done = command("compare", bench.reader, bench.noise, *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["winner"] == "reader"
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert "reader wins at equal compute" in done.stderr
