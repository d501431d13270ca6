"""ELECTRA's claim: its data, tasks and guards, and the mechanics of all claims as CI runs them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.claims import load_claim
from headstart.claims._claim import Claim, Scale
from headstart.claims._run import claim
from headstart.claims._text import draw_balanced, frequent_tag_accuracy, naive_bayes_accuracy, right_of_records
from headstart.claims.electra import CLAIM, notes, open_data
from headstart.core.errors import BadInput
from headstart.tasks.data import TaggedData, TextData
from tests.running import environment, run_info

NOWHERE = {"HEADSTART_DATA": "/nowhere"}


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a clone without the data."""
    line = [sys.executable, "-m", "headstart", "claim", *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=environment() | NOWHERE, cwd=cwd, timeout=300, check=False)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(folder, result) of the smoke preset."""
    folder = tmp_path_factory.mktemp("claims")
    done = command("electra", "--preset", "smoke", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "claims" / "electra-smoke", json.loads(done.stdout)


@pytest.mark.slow
def test_smoke_runs_the_mechanics_without_the_data_and_says_the_budget_is_too_small(smoke: tuple[Path, dict[str, Any]]) -> None:
    folder, result = smoke
    electra, mlm = result["arms"]
    assert electra["runs"][0]["train_flops"] == pytest.approx(mlm["runs"][0]["train_flops"], rel=0.1)
    assert result["verdict"] == "inconclusive"
    assert "budget too small: electra, seed 0: held-out MLM loss (nats)" in result["sentence"]
    assert result["command"] == "headstart claim electra --preset smoke --json"
    assert set(electra["runs"][0]["tasks"]) == {"subj", "pol", "tags"}
    assert (folder / "result.svg").read_text().startswith("<?xml")
    assert len(result["leaks"]) == 6, "three tasks, each against its labels and the pre-training text"


@pytest.mark.slow
def test_the_guards_are_judged_against_the_entropy_of_the_training_pieces(smoke: tuple[Path, dict[str, Any]]) -> None:
    folder, result = smoke
    entropy = run_info(folder / "runs" / "electra-rate-0.001-seed-0")["data"][0]["unigram_entropy"]
    of_electra, of_mlm = ({guard["what"]: guard for guard in arm["runs"][0]["guards"]} for arm in result["arms"])
    assert of_electra.keys() == {"held-out MLM loss (nats)", "AUC of the discriminator"}
    assert of_mlm.keys() == {"held-out MLM loss (nats)"}, "mlm has no discriminator"
    for guards in (of_electra, of_mlm):
        loss = guards["held-out MLM loss (nats)"]
        assert loss["limit"] == pytest.approx(entropy - 0.3, abs=1e-5)
        assert not loss["passed"]
        assert entropy - 0.3 < loss["value"] < np.log(1024) + 1, "twenty steps have learned next to nothing, and no answer is in sight"
    assert 0.3 < of_electra["AUC of the discriminator"]["value"] < 0.7


@pytest.mark.slow
def test_the_last_reviews_are_held_out_of_pre_training(smoke: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = smoke
    counts = run_info(folder / "runs" / "electra-rate-0.001-seed-0")["data"][0]["counts"]
    held_out, trained = ((folder / "data" / f"{name}.jsonl").read_text().splitlines() for name in ("held_out", "corpus"))
    assert (len(trained), len(held_out), counts["documents"]) == (50, 10, 50)
    assert not set(trained) & set(held_out)


@pytest.mark.slow
def test_missing_data_is_named_with_what_to_do(tmp_path: Path) -> None:
    done = command("electra", "--preset", "cpu", cwd=tmp_path)
    assert done.returncode == 3
    assert "/nowhere/movies: is not there: the claim needs this data." in done.stderr
    assert "Set HEADSTART_DATA" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("electra", "--all"), ("--all", "--out", "x"), ("elektra", "--preset", "smoke")])
def test_wrong_usage_exits_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert not list(tmp_path.iterdir())


def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HEADSTART_DATA", "/nowhere")
    return open_data(CLAIM.presets["smoke"], tmp_path)


def test_every_task_tries_the_same_two_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened(tmp_path, monkeypatch)
    assert {task.settings for task in data.tasks} == {(3e-4, 1e-3)}
    assert [task.name for task in data.tasks] == ["subj", "pol", "tags"]
    assert [len(task.texts) for task in data.tasks] == [64, 64, 60]


def test_labels_are_half_of_each_class_drawn_anew_for_each_seed() -> None:
    pool = TextData([f"text {i}" for i in range(100)], [i % 2 for i in range(100)], ["no", "yes"])
    first, second = draw_balanced(pool, 20, 0), draw_balanced(pool, 20, 1)
    assert sum(first.labels) == sum(second.labels) == 10
    assert len(set(first.texts)) == 20
    assert first.texts != second.texts
    assert draw_balanced(pool, 20, 0).texts == first.texts, "the same for every arm"


def test_naive_bayes_by_hand() -> None:
    """Classes of equal size. "good": (2+1)/(3+3) in yes, (0+1)/(3+3) in no; "film" 2/6 in both; an unknown word says nothing."""
    labelled = TextData(["good good film", "bad bad film"], [1, 0], ["no", "yes"])
    assert naive_bayes_accuracy(labelled, TextData(["good unheard", "bad film", "good bad bad", "good good bad"], [1, 0, 0, 1], ["no", "yes"])) == 1.0
    assert naive_bayes_accuracy(labelled, TextData(["good", "bad"], [0, 1], ["no", "yes"])) == 0.0


def test_most_frequent_tag_by_hand() -> None:
    labelled = TaggedData([["the", "dog", "runs", "dog"], ["dog"]], [["DT", "NN", "VB", "VB"], ["NN"]])
    scored = TaggedData([["the", "dog", "cat"], ["runs"]], [["DT", "VB", "NN"], ["VB"]])
    assert frequent_tag_accuracy(labelled, scored) == pytest.approx(3 / 4), "the unseen word gets the most frequent tag, NN"


def test_items_of_tagging_are_sentences_with_their_words() -> None:
    tagged = TaggedData([["a", "b"], ["c"]], [["X", "Y"], ["X"]])
    assert right_of_records([["X", "X"], ["X"]], tagged).tolist() == [[1, 2], [1, 1]]
    texts = TextData(["a", "b"], [0, 1], ["no", "yes"])
    assert right_of_records(["no", "no"], texts).tolist() == [[1, 1], [0, 1]]


def test_the_share_of_the_gain_is_said_where_the_arm_is_there() -> None:
    assert notes({"electra": 0.8, "mlm": 0.7, "electra_15": 0.72})[0].endswith("has 20 %.")
    assert notes({"electra": 0.8, "mlm": 0.7, "none": 0.5}) == []


def test_presets_are_those_of_the_specification() -> None:
    assert load_claim("electra") is CLAIM
    cpu, gpu = CLAIM.presets["cpu"], CLAIM.presets["gpu"]
    assert [arm.name for arm in cpu.arms] == ["electra", "mlm", "none"]
    assert [arm.name for arm in gpu.arms] == ["electra", "mlm", "electra_15", "all_tokens_mlm", "none"]
    assert (cpu.seeds, gpu.seeds, gpu.seeds_of(gpu.arms[2])) == (3, 5, 3)
    assert (cpu.learning_rates, gpu.learning_rates) == ((1e-3, 3e-3), (5e-4, 1e-3, 2e-3))
    deciding = {preset: [(c.a, c.b) for c in CLAIM.comparisons_of(CLAIM.presets[preset]) if c.decides] for preset in ("cpu", "gpu")}
    assert deciding == {"cpu": [("electra", "mlm")], "gpu": [("electra", "mlm"), ("electra", "electra_15")]}, "claim 2 is decided on a GPU only"


def small_gpu() -> Claim:
    """The gpu preset's arms and settings at a size that a CPU does in seconds."""
    gpu, smoke = CLAIM.presets["gpu"], CLAIM.presets["smoke"]
    settings = {**gpu.settings, "budget.flops": 1.5e10, "batch": 4, "text.vocab_size": 600, "method.num_layers": 1, "precision": "fp32"}
    arms = tuple(dataclasses.replace(arm, seeds=1) for arm in gpu.arms)
    scale = Scale(arms, 1, (1e-3,), {**settings, "method.sequence_length": 64}, options={**smoke.options, "finetune_rates": (1e-3,)})
    return dataclasses.replace(CLAIM, presets={"gpu": scale})


@pytest.mark.slow
def test_every_arm_of_the_gpu_preset_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_DATA", "/nowhere")
    result = claim(small_gpu(), "gpu", out=tmp_path, device="cpu", results=tmp_path / "results", say=lambda line: None)
    flops = {arm["arm"]: arm["runs"][0]["train_flops"] for arm in result["arms"]}
    assert flops.pop("none") == 0
    assert len(flops) == 4
    assert max(flops.values()) < 1.5e10 < 1.6 * min(flops.values())
    assert [len(arm["runs"][0]["guards"]) for arm in result["arms"]] == [2, 1, 2, 1, 0]
    assert "electra_15 (loss on the written positions alone) has" in result["notes"][0]


def test_a_data_folder_given_by_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_DATA", str(tmp_path))
    with pytest.raises(BadInput, match=str(tmp_path / "movies")):
        open_data(CLAIM.presets["cpu"], tmp_path)
