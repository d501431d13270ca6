"""`plan cpt` and `plan dcpt` whole, on two made-up languages and a model of some thousand weights."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import headstart
from headstart.cli.main import main
from headstart.cli.plan import numbers
from headstart.core.errors import BadInput, UsageError
from headstart.data.text.config import TextConfig
from headstart.data.text.store import prepare_text
from headstart.verbs._plan_flattest import losses_at
from headstart.verbs._plan_settings import CptSettings
from headstart.verbs._plan_subset import best_part
from headstart.verbs._sweep import held_out_share_of, mix, named_data, origin_of
from headstart.verbs.plan import PlannedSweep, run_settings
from headstart.verbs.plan_cpt import CptPlan
from tests.running import flags, records, run_info, start, wait_until

MODEL = {
    "method.hidden_size": 16, "method.num_layers": 1, "method.num_heads": 2, "method.intermediate_size": 24, "method.sequence_length": 16,
    "text.vocab_size": 300, "optimizer.learning_rate": 4e-3, "batch": 4, "device": "cpu", "precision": "fp32",
}  # fmt: skip
PLAN: dict[str, Any] = {"device": "cpu", "precision": "fp32", "draws": 6, "held_out_share": 0.1}

pytestmark = pytest.mark.slow


def write_language(path: Path, prefix: str, step: int, documents: int) -> Path:
    """Walks over words: the next one follows from this one but for a small choice."""
    draw = random.Random(prefix)
    words = [prefix + "".join(draw.choice("abcdef") for _ in range(3)) for _ in range(90)] + [f"s{letter}" for letter in "abcdef"]
    texts = []
    for _ in range(documents):
        at, text = draw.randrange(len(words)), []
        for _ in range(60):
            text.append(words[at])
            at = (step * at + draw.randrange(60)) % len(words)
        texts.append(" ".join(text))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """old.jsonl, new.jsonl and a model of the old language."""
    folder = tmp_path_factory.mktemp("plan")
    old = write_language(folder / "old.jsonl", "a", 7, 200)
    write_language(folder / "new.jsonl", "f", 5, 60)
    schedule = {"schedule.name": "cosine", "schedule.minimum_share": 0.1, "budget.steps": 300}
    headstart.pretrain("causal-lm", old, out=folder / "up", say=lambda line: None, **MODEL, **schedule)
    return folder


def plan(place: Path, said: Callable[[str], None] = lambda line: None, **settings: Any) -> CptPlan:
    given: dict[str, Any] = {"init": place / "up", "domain": str(place / "new.jsonl"), "general": str(place / "old.jsonl")}
    given |= {"budget.tokens": 1200 * 64, "out": place / "cpt", "limit": 0.5}
    found = headstart.plan("cpt", say=said, **{**PLAN, **given, **settings})
    assert isinstance(found, CptPlan)
    return found


@pytest.fixture(scope="module")
def planned(place: Path) -> CptPlan:
    """A plan with its run and the naive one: 60 documents of new text are read four times by a shorter run."""
    lines = (place / "old.jsonl").read_text().splitlines()[:4]
    words = [json.loads(line)["text"].split() for line in lines]
    items = [{"id": str(at), "context": " ".join(of[:8]), "choices": [" " + of[8], " " + of[20]], "answer": 0} for at, of in enumerate(words)]
    (place / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return plan(place, run=True, items=place / "items.jsonl", flattest=True)


def last(run: Path, probe: str) -> float:
    return float([line["value"] for line in records(run, "probes") if line["probe"] == probe][-1])


def test_what_a_law_errs_by_is_seen_said_and_in_its_intervals(planned: CptPlan) -> None:
    """Runs of 40 steps are looked at over a factor of less than two; the long one is 24 times as long."""
    for which in ("general", "domain"):
        assert planned.info["errors"][which]["within"] > 0
        predicted = planned.info["predicted"][f"{which}_loss"]
        assert predicted["low"] < predicted["value"] < predicted["high"]
    assert any("is further than the points reach" in warning for warning in planned.info["warnings"])


def test_the_budget_is_divided_and_the_sweep_has_one_rate(planned: CptPlan) -> None:
    info = planned.info
    assert (info["budget"]["of_each"], info["budget"]["left"]) == (40, 960)
    runs = sorted((planned.folder / "runs").glob("n3072-*"))
    assert len(runs) == 5
    for run in runs:
        config = run_info(run)["config"]
        assert (config["schedule"]["name"], config["optimizer"]["learning_rate"]) == ("constant", 2e-3)
        assert config["optimizer"]["beta2"] == run_info(planned.folder.parent / "up")["config"]["optimizer"]["beta2"]
        assert not (run / "export").exists()
    points = pq.read_table(planned.folder / "points.parquet").to_pylist()
    assert len(points) == 40  # eight looks: four runs with old text give their law 32 points
    assert {point["r_d"] for point in points} == {0.1, 0.2, 0.5, 0.8, 1.0}


def test_annealing_is_measured_beside_the_constant_run_of_the_same_mixture(planned: CptPlan) -> None:
    runs = planned.folder / "runs"
    for part, name in (("old", "general"), ("new", "domain")):
        constant, annealed = (last(runs / run, f"held_out_loss/{part}") for run in ("n3072-r0.5-seed-0", "annealed-r0.5-seed-0"))
        assert planned.info["anneal"][name] == pytest.approx(constant - annealed)
    assert planned.info["anneal"]["domain"] > 0  # the rate ends at a tenth


def test_both_losses_before_training_are_in_bits_a_byte_too(planned: CptPlan) -> None:
    first = {line["probe"]: line["value"] for line in records(planned.folder / "runs" / "n3072-r0.1-seed-0", "probes") if line["step"] == 0}
    for part in ("old", "new"):
        assert planned.info["before"][part] == first[f"held_out_loss/{part}"]
        assert planned.info["before_bits_per_byte"][part] == first[f"bits_per_byte/{part}"]


def test_the_run_reads_the_new_text_four_times_at_most_and_says_what_gave_way(planned: CptPlan) -> None:
    info = planned.info
    chosen = info["recommended"]
    assert chosen["lowered"] in ("r", "D", "r and D")
    assert chosen["epochs"] == pytest.approx(4, abs=0.05)
    assert chosen["epochs"] == pytest.approx(chosen["r_d"] * chosen["tokens"] / info["look"]["unique"], rel=0.01)
    assert any("so that it is read 4 times" in warning for warning in info["warnings"])
    assert any("held-out tokens: below 30,000" in warning for warning in info["warnings"])


def test_what_was_predicted_stands_beside_what_was_measured(planned: CptPlan) -> None:
    info, report = planned.info, planned.info["report"]
    run = next((planned.folder / "runs").glob("recommended-*"))
    assert report["measured"]["domain_loss"] == last(run, "held_out_loss/new")
    predicted = info["predicted"]["general_loss"]["value"]
    assert report["measured_minus_predicted"]["general_loss"] == pytest.approx(last(run, "held_out_loss/old") - predicted)
    assert report["limit_kept"] == (last(run, "held_out_loss/old") <= 1.5 * info["before"]["old"])
    ours, naive = report["runs"]
    assert naive["name"] == "naive"
    for one, folder in ((ours, run), (naive, next((planned.folder / "runs").glob("naive-*")))):
        first = next(line["value"] for line in records(folder, "probes") if line["probe"] == "bits_per_byte/old")
        assert one["forgetting_bits_per_byte"] == pytest.approx(last(folder, "bits_per_byte/old") - first)
    assert run_info(next((planned.folder / "runs").glob("naive-*")))["config"]["mix"] == "new=1,old=0"
    assert naive["forgetting_bits_per_byte"] > ours["forgetting_bits_per_byte"]
    assert ours["items"][2] == 4
    assert ours["items"][0] == naive["items"][0]  # of the model before training


def test_of_the_last_checkpoints_of_equal_loss_the_flattest_is_named(planned: CptPlan) -> None:
    run = next((planned.folder / "runs").glob("recommended-*"))
    kept = {int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")}
    assert len(kept) == 5
    found = planned.info["report"]["flattest"]
    losses = losses_at(run, planned.info["recommended"]["r_d"])
    best = min(losses[step] for step in kept)
    assert [one["step"] for one in found["candidates"]] == sorted(step for step in kept if losses[step] <= best + 0.01)
    assert [one["loss"] for one in found["candidates"]] == pytest.approx([losses[one["step"]] for one in found["candidates"]], abs=1e-4)
    flat = min(found["candidates"], key=lambda one: one["trace"])
    assert (found["step"], found["export"]) == (flat["step"], str(run / "checkpoints" / f"step-{flat['step']:08d}" / "export"))


def test_held_out_text_is_what_the_model_was_not_trained_on(planned: CptPlan, place: Path, tmp_path: Path) -> None:
    """`up` held out 2 % of its documents, the plan of these tests 10 %: that is said. Without --held-out-share it is 2 %."""
    assert any("of the held-out documents of 'old' were trained on by" in warning for warning in planned.info["warnings"])
    assert held_out_share_of(place / "up") == 0.02
    assert held_out_share_of(place / "up" / "export") == 0.02
    shutil.copytree(place / "up" / "export", tmp_path / "stranger")
    assert held_out_share_of(tmp_path / "stranger") == 0.05
    assert run_settings(CptSettings(), place / "up")["text.held_out_share"] == 0.02
    assert run_settings(CptSettings(held_out_share=0.3), place / "up")["text.held_out_share"] == 0.3


def test_the_command_is_the_run(planned: CptPlan, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given again as it is printed it finds the run done: not a setting differs."""
    import shlex

    assert planned.command is not None
    assert main(shlex.split(planned.command)[1:]) == 0
    assert "Nothing to do" in capsys.readouterr().out


def test_the_same_command_measures_nothing_twice_and_another_limit_answers_from_the_same_sweep(planned: CptPlan, place: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in (planned.folder / "runs").glob("*/probes.jsonl")}
    said: list[str] = []
    strict = plan(place, said.append, limit=0.0, draws=0)
    assert {path: path.stat().st_mtime_ns for path in (planned.folder / "runs").glob("*/probes.jsonl")} == times
    assert strict.info["before"] == planned.info["before"]
    if strict.command is None:
        assert any("--peak 0.002 in another --out" in line for line in said)
    else:
        assert strict.info["recommended"]["r_d"] < planned.info["answer"]["figures"]["r_d"]["value"]
    with pytest.raises(UsageError, match=r"holds another plan .*seed: 0 -> 1"):
        plan(place, seed=1)


def test_a_plan_that_was_killed_again_and_again_is_the_undisturbed_plan(planned: CptPlan, place: Path, tmp_path: Path) -> None:
    """In the dry run, before cpt.json is there; in the second run of the sweep; in the annealed one."""
    out, log = tmp_path / "killed", tmp_path / "log"
    given: dict[str, Any] = {**PLAN, "init": place / "up", "domain": place / "new.jsonl", "general": place / "old.jsonl", "limit": 0.5, "out": out}
    command = ["plan", "cpt", *flags(given), "--budget.tokens", str(1200 * 64)]
    for name in ("look", "n3072-r0.2-seed-0", "annealed-r0.5-seed-0"):
        process = start(*command, log=log)
        wait_until(lambda name=name: (out / "runs" / name / "run.json").exists(), process, log)  # type: ignore[misc]
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (out / "law").exists()
    again = plan(place, out=out)
    assert again.info["budget"] == planned.info["budget"]
    near = lambda info: pytest.approx(info, abs=2e-3)  # noqa: E731  (another process may have computed with other threads)
    for name in ("before", "anneal"):
        assert again.info[name] == near(planned.info[name]), name
    assert again.info["recommended"]["r_d"] == pytest.approx(planned.info["recommended"]["r_d"], abs=0.05)
    theirs, ours = (pq.read_table(folder / "points.parquet").to_pylist() for folder in (planned.folder, out))
    for one, other in zip(ours, theirs, strict=True):
        assert {key: value for key, value in one.items() if not key.startswith("loss")} == {
            key: value for key, value in other.items() if not key.startswith("loss")
        }
        assert [one[name] for name in ("loss_domain", "loss_general")] == near([other[name] for name in ("loss_domain", "loss_general")])


def test_the_runs_of_a_plan_can_be_fitted_by_hand(planned: CptPlan, tmp_path: Path) -> None:
    """Of its folder the annealed and the recommended run and the naive one have no part in the law, and are named; the dry run left nothing."""
    said: list[str] = []
    law = headstart.fit("dcpt-law", planned.folder, without="N", draws=0, out=tmp_path / "law", say=said.append)
    theirs = json.loads((planned.folder / "law" / "law.json").read_text())["laws"]
    assert {which: one.law.parameters for which, one in law.laws.items()} == {which: theirs[which]["parameters"] for which in law.laws}
    notes = "\n".join(line for line in said if line.startswith("note: "))
    assert "which made no step" not in notes
    assert "2 runs left out, whose learning rate is not constant (annealed-" in notes
    assert "1 run left out, at another constant rate than most of their size (naive-" in notes


def test_text_that_changes_between_two_runs_of_a_sweep_ends_it(place: Path, tmp_path: Path) -> None:
    """Its held-out part is another: the losses of the two runs say nothing of each other."""
    old = shutil.copy(place / "old.jsonl", tmp_path / "old.jsonl")
    settings: dict[str, Any] = {"general": str(old), "out": tmp_path / "cpt", "draws": 0}

    def change(line: str) -> None:
        if line.startswith("  n3072-r0.1"):
            write_language(tmp_path / "more.jsonl", "b", 3, 60)
            with Path(old).open("a") as file:
                file.write((tmp_path / "more.jsonl").read_text())

    with pytest.raises(BadInput, match="was measured on another held-out text of 'old' than") as refused:
        plan(place, change, **settings)
    assert "did the files change in between?" in refused.value.mend
    assert not (tmp_path / "cpt" / "runs" / "n3072-r0.5-seed-0").exists()


def test_a_little_text_is_not_read_a_hundred_times(place: Path, tmp_path: Path) -> None:
    lines = (place / "new.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "few.jsonl").write_text("".join(lines[:3]))  # some 560 tokens
    (tmp_path / "few-held-out.jsonl").write_text("".join(lines[6:20]))
    few: dict[str, Any] = {"domain": str(tmp_path / "few.jsonl"), "domain_held_out": (str(tmp_path / "few-held-out.jsonl"),), "draws": 0}
    with pytest.raises(UsageError, match=r"In the runs of the sweep 1 of 2,560 tokens read \d+ domain tokens [\d.]+ times") as refused:
        plan(place, out=tmp_path / "new", **few)
    assert "more new text" in refused.value.mend
    assert [run.name for run in (tmp_path / "new" / "runs").iterdir() if run.name.startswith(("n3072", "annealed"))] == []
    with pytest.raises(UsageError, match=r"1 of 5,120 tokens read \d+ domain tokens"):
        headstart.plan(
            "dcpt", general=str(place / "old.jsonl"), checkpoints=(place / "up",), tokens=80 * 64, out=tmp_path / "sweep", say=lambda line: None,
            **PLAN | few,
        )  # fmt: skip
    old = (place / "old.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "old.jsonl").write_text("".join(old[:12]))
    (tmp_path / "old-held-out.jsonl").write_text("".join(old[12:40]))
    few = {"general": str(tmp_path / "old.jsonl"), "general_held_out": (str(tmp_path / "old-held-out.jsonl"),), "draws": 0}
    found = plan(place, out=tmp_path / "old", **few)
    assert any(line.startswith("in the sweep the general text is read up to ") for line in found.info["warnings"])


def test_a_reference_chooses_the_best_part_and_none_of_the_held_out_documents(place: Path) -> None:
    many = write_language(place / "many.jsonl", "f", 5, 1000)
    (place / "good.jsonl").write_text("".join((place / "new.jsonl").read_text().splitlines(keepends=True)[:40]))
    settings = CptSettings(domain=(str(many),), reference=(str(place / "good.jsonl"),))
    model = place / "up" / "export"
    store = prepare_text([many], place / "many-store", TextConfig(tokenizer=str(model), held_out_share=0.1))
    said: list[str] = []
    chosen = best_part(settings, store.folder, model, 8_000, place / "subset", said.append)
    assert chosen["tokens"] == pytest.approx(8_000, rel=0.03)
    assert "% of what was wanted" in said[0]
    texts = {json.loads(line)["text"] for line in Path(chosen["file"]).read_text().splitlines()}
    records_of_many = map(json.loads, many.read_text().splitlines())
    held_out = {record["text"] for record, out in zip(records_of_many, store.held_out, strict=True) if out}
    assert len(held_out) > 50
    assert not texts & held_out
    data = named_data((chosen["file"],), (str(place / "old.jsonl"),), (str(store.folder),))
    run = headstart.pretrain(  # the run that the plan would make of it
        "causal-lm", list(data), init=place / "up", mix="new=0.7,old=0.3", out=place / "drawn", say=lambda line: None,
        **{"budget.steps": 20, "epochs.tokens": 320, "method.packing": "stream", "batch": 4, "method.sequence_length": 16, "device": "cpu",
           "precision": "fp32", "optimizer.learning_rate": 4e-3, "trainer.part_rows": 4},
    )  # fmt: skip
    assert [entry["store"] for entry in run.info["measured"] if entry["part"] == "new"] == [str(store.folder)]


def test_a_sweep_over_sizes_writes_its_points_and_its_law(place: Path) -> None:
    wide = {"method.hidden_size": 24, "method.intermediate_size": 36, "schedule.name": "cosine", "schedule.minimum_share": 0.1, "budget.steps": 300}
    headstart.pretrain("causal-lm", place / "old.jsonl", out=place / "wide", say=lambda line: None, **{**MODEL, **wide})
    found = headstart.plan(
        "dcpt", general=str(place / "old.jsonl"), domain=str(place / "new.jsonl"), checkpoints=(place / "up", place / "wide"), tokens=80 * 64,
        ratios=(0.1, 0.2, 0.5, 0.8, 1.0), fix=("alpha=0.25",), out=place / "sweep", limit=(0.5,), at_d=200 * 64, say=lambda line: None, **PLAN,
    )  # fmt: skip
    assert isinstance(found, PlannedSweep)
    points = pq.read_table(found.points).to_pylist()
    assert sorted({point["N"] for point in points}) == [12 * 16**2, 12 * 24**2]
    assert {point["D"] for point in points} == {64 * step for step in (28, 40, 57, 80)}
    assert found.law.laws["general"].law["alpha"] == 0.25
    assert found.law.answers[0].figures
    first = next(line["value"] for line in records(place / "sweep" / "runs" / "n6912-r0.5-seed-0", "probes") if line["probe"] == "held_out_loss/old")
    assert found.general_loss == first
    again = headstart.fit("dcpt-law", place / "sweep", fix=("alpha=0.25",), draws=0, out=place / "again", say=lambda line: None)
    assert again.laws["domain"].law.parameters == found.law.laws["domain"].law.parameters


def test_a_rate_that_nobody_knows_is_asked_for(place: Path) -> None:
    stranger = place / "stranger"
    stranger.mkdir()
    for path in (place / "up" / "export").iterdir():
        if path.name != "hashes.json":
            (stranger / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="does not say at which rate"):
        plan(place, init=stranger, out=place / "unknown")
    with pytest.raises(UsageError, match="is no run of ours, so its old text is not known"):
        plan(place, init=stranger, peak=1e-3, general=(), out=place / "unknown")
    origin = origin_of(stranger, 1e-3, None, None)
    assert (origin.batch, origin.settings["method.sequence_length"], origin.parameters, origin.floor) == (32, 16, 3072, None)
    assert origin_of(place / "up", None, None, None).floor == pytest.approx(4e-4)


def test_the_folder_of_a_refused_plan_can_be_planned_in_again(place: Path) -> None:
    """The mend is another budget, in the same folder. What was chosen or begun for the plan of before is of no use to another."""
    for steps in (200, 300):
        with pytest.raises(UsageError, match=r"leaves \d+ steps for each of the 6 runs") as refused:
            plan(place, out=place / "short", **{"budget.tokens": steps * 64})
        assert refused.value.what.startswith(f"A budget of {steps * 64} tokens ({steps} steps) leaves")
        assert "Give --budget.tokens 77000 or more" in refused.value.mend
        assert [entry.name for entry in (place / "short" / "runs").iterdir()] == ["stores"]


def test_another_reference_chooses_anew(place: Path) -> None:
    """A plan that was killed after it had chosen its part of the new text, before it measured anything."""
    short: dict[str, Any] = {"out": place / "chosen", "budget.tokens": 300 * 64}
    for name in ("first", "second"):
        (place / f"{name}.jsonl").write_text((place / "new.jsonl").read_text())
        with pytest.raises(UsageError, match=r"leaves \d+ steps for each of the 6 runs"):
            plan(place, reference=(str(place / f"{name}.jsonl"),), **short)
        assert not (place / "chosen" / "subset").exists()
        for folder in ("subset", "runs/annealed"):
            (place / "chosen" / folder).mkdir(parents=True)
        for file in ("selected.jsonl", "report.json"):
            (place / "chosen" / "subset" / file).write_text("{}")
    with pytest.raises(UsageError):
        plan(place, reference=(str(place / "second.jsonl"),), **short)
    assert (place / "chosen" / "subset" / "report.json").exists(), "the same plan goes on"


def test_an_item_that_does_not_fit_the_network_is_refused_before_anything_runs(place: Path) -> None:
    item = {"id": "long", "context": "one", "choices": [" two", " " + "three " * 40], "answer": 0}
    (place / "long.jsonl").write_text(json.dumps(item) + "\n")
    with pytest.raises(BadInput, match=r"long\.jsonl, record 1.*longer than the 16 positions"):
        plan(place, run=True, items=place / "long.jsonl", out=place / "refused")
    assert not (place / "refused").exists()


def test_numbers_may_have_commas_and_per_cent() -> None:
    assert numbers(["--ratios", ".1,.2,1", "--limit=3%", "--general", "a,b.txt"]) == [
        "--ratios", ".1", ".2", "1", "--limit", "0.03", "--general", "a,b.txt",
    ]  # fmt: skip
    assert [mix(ratio) for ratio in (0.0, 0.1, 0.7, 1.0)] == ["new=0,old=1", "new=0.1,old=0.9", "new=0.7,old=0.3", "new=1,old=0"]
