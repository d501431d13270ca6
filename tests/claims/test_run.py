"""Running a claim: whole and in parts, killed and continued, changed in between."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headstart.claims import load_claim
from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Scale, Score, Task
from headstart.claims._committed import results_folder
from headstart.claims._run import claim
from headstart.core.errors import MissingDependency, UsageError
from tests.claims import fake
from tests.running import environment, quiet, records, run_info, weight_files

CHANGING = {"wall_s", "date", "commit", "command", "machine", "hardware"}


def fixed(value: Any) -> Any:
    """A result without what a clock or a command line decides."""
    if isinstance(value, dict):
        return {key: fixed(item) for key, item in value.items() if key not in CHANGING}
    return [fixed(item) for item in value] if isinstance(value, list) else value


def result_in(folder: Path, name: str = "result.json") -> dict[str, Any]:
    return dict(json.loads((folder / name).read_text()))


def run_fake(out: Path, declared: Claim = fake.CLAIM, **more: Any) -> dict[str, Any]:
    return claim(declared, out=out, device="cpu", results=out / "results", say=more.pop("say", quiet), **more)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the fake claim. Read it, do not write into it."""
    out = tmp_path_factory.mktemp("claims") / "fake"
    run_fake(out)
    return out


@pytest.mark.slow
def test_arms_get_equal_counted_flops_and_the_same_tuning(undisturbed: Path) -> None:
    result = result_in(undisturbed)
    causal, masked, none = result["arms"]
    assert [arm["arm"] for arm in result["arms"]] == ["causal", "masked", "none"]
    for arm in (causal, masked):
        assert set(arm["tuning"]["learning_rates"]) == {"0.001", "0.002"}
        assert [set(tried["tasks"]["first"]) for tried in arm["tuning"]["learning_rates"].values()] == [{"1", "2"}] * 2
        best = max(arm["tuning"]["learning_rates"], key=lambda rate: arm["tuning"]["learning_rates"][rate]["mean"])
        assert arm["learning_rate"] == float(best)
        for run in arm["runs"]:
            totals = run_info(undisturbed / "runs" / f"{arm['arm']}-rate-{best}-seed-{run['seed']}")["totals"]
            assert run["train_flops"] == totals["flops"] > 0
    assert causal["runs"][0]["train_flops"] == pytest.approx(masked["runs"][0]["train_flops"], rel=0.1)
    assert [run["train_flops"] for run in none["runs"]] == [0.0, 0.0]
    assert set(none["tuning"]["settings"]["first"]) == {"1", "2"}, "an untrained arm has the task's grid too"


@pytest.mark.slow
def test_the_untrained_arm_is_the_network_before_step_1(undisturbed: Path) -> None:
    """Its weights are neither those of the trained arm nor the same for every seed."""
    runs = undisturbed / "runs"
    rate = result_in(undisturbed)["arms"][1]["learning_rate"]
    trained, untrained, other = (weight_files(runs / name) for name in (f"masked-rate-{rate:g}-seed-0", "none-seed-0", "none-seed-1"))
    assert {name: len(data) for name, data in trained.items()} == {name: len(data) for name, data in untrained.items()}
    assert trained != untrained != other


@pytest.mark.slow
def test_every_choice_is_made_on_dev_with_seed_0_and_test_is_measured_once(undisturbed: Path) -> None:
    calls = [line.split() for line in (undisturbed / "calls.txt").read_text().splitlines()]
    assert len(calls) == len(set(map(tuple, calls))) == (2 + 2 + 1) * 2 + 3 * 2 * 2
    assert {name.split("seed-")[1] for name, split, *_ in calls if split == "dev"} == {"0"}
    settings = {name: {setting for run, split, setting, _ in calls if run.startswith(name) and split == "test"} for name in ("causal", "masked")}
    assert all(len(chosen) == 1 for chosen in settings.values()), "only the chosen setting ever sees the test records"


@pytest.mark.slow
def test_a_whole_result_is_put_among_the_results_a_part_is_not(undisturbed: Path, tmp_path: Path) -> None:
    committed = undisturbed / "results"
    assert {path.name for path in committed.iterdir()} == {"fake-cpu.json", "fake-cpu.svg"}
    assert result_in(committed, "fake-cpu.json") == result_in(undisturbed)
    partial = run_fake(tmp_path / "part", only_arm="causal", seeds=1)
    assert not partial["whole"]
    assert partial["sentence"].startswith("No verdict")
    assert not (tmp_path / "part" / "results").exists()
    smoke = dataclasses.replace(fake.CLAIM, presets={"smoke": dataclasses.replace(fake.CLAIM.presets["cpu"], seeds=1, learning_rates=(1e-3,))})
    run_fake(tmp_path / "smoke", smoke, preset="smoke")
    assert (tmp_path / "smoke" / "result.json").exists()
    assert not (tmp_path / "smoke" / "results").exists(), "figures of a smoke run say nothing"


@pytest.mark.slow
def test_parts_make_the_same_result_as_the_whole(undisturbed: Path, tmp_path: Path) -> None:
    run_fake(tmp_path, only_arm="masked", seeds=1)
    run_fake(tmp_path, only_arm="none")
    run_fake(tmp_path)
    assert fixed(result_in(tmp_path)) == fixed(result_in(undisturbed))
    assert len((tmp_path / "calls.txt").read_text().splitlines()) == len((undisturbed / "calls.txt").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.promise("A claim that was killed (SIGKILL) goes on where it was, repeats at most one measurement, and ends with the same result")
def test_kill_9_again_and_again_gives_the_same_result(undisturbed: Path, tmp_path: Path) -> None:
    out, kills = tmp_path / "out", 0
    before_kills: list[set[str]] = []
    while True:  # before the 100th change of the disk, then the 200th, the 400th ...: each time it comes further
        command = [sys.executable, "-m", "tests.claims.fake", str(out), str(100 * 2**kills)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
        if done.returncode != -signal.SIGKILL:
            assert done.returncode == 0, done.stderr[-3000:]
            break
        kills += 1
        before_kills.append(set(result_in(out, "measured.json")["scores"]) if (out / "measured.json").exists() else set())
    assert kills >= 3
    assert fixed(result_in(out)) == fixed(result_in(undisturbed))
    assert all(set(earlier) <= set(later) for earlier, later in pairwise(before_kills))
    calls = Counter((out / "calls.txt").read_text().splitlines())
    assert calls.keys() == Counter((undisturbed / "calls.txt").read_text().splitlines()).keys()
    assert calls.total() - len(calls) <= kills, "a kill costs one measurement at most"
    for run in ("causal-rate-0.001-seed-0", "masked-rate-0.002-seed-0"):
        assert weight_files(out / "runs" / run) == weight_files(undisturbed / "runs" / run)
        assert [line["loss"] for line in records(out / "runs" / run, "metrics") if "loss" in line]


SMALL: dict[str, Any] = {"arms": (Arm("causal", "causal-lm"), Arm("masked", "mlm")), "seeds": 1, "learning_rates": (1e-3,), "repeats": 1}


def with_options(**options: Any) -> Claim:
    return fake.with_scale(**SMALL, options=options)


@pytest.mark.slow
def test_what_was_measured_before_a_change_is_not_mixed_with_what_comes_after(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_fake(out, with_options(epochs=3))
    with pytest.raises(UsageError, match=r"scale\.options\.epochs: 3 -> 4"):
        run_fake(out, with_options(epochs=4))
    changed = fake.with_scale(**SMALL | {"learning_rates": (3e-3,)}, options={"epochs": 3})
    with pytest.raises(UsageError, match=r"scale\.learning_rates"):
        run_fake(out, changed)
    first = out / "data" / "corpus" / "first.txt"
    text = first.read_text()
    first.write_text(text + "\n\nThe end.\n")
    with pytest.raises(UsageError, match=r"data\.first\.txt"):
        run_fake(out, with_options(epochs=3))
    first.write_text(text)
    before = len((out / "calls.txt").read_text().splitlines())
    more = fake.with_scale(**SMALL | {"seeds": 2}, options={"epochs": 3})
    assert run_fake(out, more)["arms"][0]["runs"][1]["seed"] == 1, "more seeds are no change"
    assert len((out / "calls.txt").read_text().splitlines()) == before + 2


@pytest.mark.slow
def test_a_change_of_the_claim_file_is_noticed_but_not_one_of_its_words(tmp_path: Path) -> None:
    """A copy of the fake claim's module under another name, edited between two calls."""
    source = Path(fake.__file__).read_text()
    claim_file = tmp_path / "copied_claim.py"
    out = tmp_path / "out"

    def call(text: str) -> subprocess.CompletedProcess[str]:
        claim_file.write_text(text)
        code = (
            "import copied_claim as c; from headstart.claims._run import claim;"
            "declared = c.with_scale(arms=(c.Arm('causal', 'causal-lm'),), seeds=1, learning_rates=(1e-3,), repeats=1);"
            f"claim(declared, out={str(out)!r}, results={str(out)!r}, device='cpu')"
        )
        root = Path(fake.__file__).parents[2]
        path = {"PYTHONPATH": f"{root / 'src'}:{root}:{tmp_path}"}
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment() | path, timeout=120, cwd=tmp_path)

    first = call(source)
    assert first.returncode == 0, first.stderr
    reworded = source.replace('statement="Causal is better than masked."', 'statement="Causal is better."')
    assert reworded != source
    same = call(reworded.replace("time.sleep(0.02)", "time.sleep(0.02)  # seconds"))
    assert same.returncode == 0, same.stderr
    other = call(source.replace("time.sleep(0.02)", "time.sleep(0.03)"))
    assert other.returncode != 0
    assert "before a change (identity.code" in other.stderr


@pytest.mark.slow
def test_unequal_budgets_are_refused_by_name_before_the_unequal_run_is_measured(tmp_path: Path) -> None:
    arms = (Arm("causal", "causal-lm"), Arm("masked", "mlm", {"budget.flops": 9e8}))
    with pytest.raises(UsageError, match=r"arms masked \(seed 0\) and causal \(seed 0\) had unequal training FLOPs"):
        run_fake(tmp_path, fake.with_scale(**SMALL | {"arms": arms}))
    assert not (tmp_path / "result.json").exists()
    assert "masked" not in (tmp_path / "calls.txt").read_text()


@pytest.mark.slow
def test_a_common_start_counts(tmp_path: Path) -> None:
    """An arm that continues from another one's export for a third of the budget must add up to the budget."""
    start = Arm("start", "causal-lm", {"budget.flops": 4e8})
    continued = Arm("continued", "causal-lm", {"budget.flops": 2e8}, start=start)
    arms = (Arm("direct", "causal-lm"), continued)
    declared = dataclasses.replace(fake.with_scale(**SMALL | {"arms": arms}), comparisons=())
    result = run_fake(tmp_path, declared)
    direct, after = (arm["runs"][0] for arm in result["arms"])
    begun = run_info(tmp_path / "runs" / "start-rate-0.001-seed-0")["totals"]
    own = run_info(tmp_path / "runs" / "continued-rate-0.001-seed-0")["totals"]
    assert after["train_flops"] == begun["flops"] + own["flops"] == pytest.approx(direct["train_flops"], rel=0.1)
    assert after["tokens"] == begun["tokens"] + own["tokens"]
    alone = Arm("continued", "causal-lm", {"budget.flops": 6e8}, start=start)
    with pytest.raises(UsageError, match=r"continued \(seed 0\) and direct \(seed 0\) had unequal"):
        run_fake(tmp_path / "more", dataclasses.replace(fake.with_scale(**SMALL | {"arms": (arms[0], alone)}), comparisons=()))


@pytest.mark.slow
def test_a_failed_guard_is_said_at_once_and_makes_the_verdict_inconclusive(tmp_path: Path) -> None:
    def guards(model: Model, data: Data, device: str) -> list[Guard]:
        return [Guard("loss", 5.9, 5.5, False)] if model.arm.name == "masked" else []

    said: list[str] = []
    result = run_fake(tmp_path, dataclasses.replace(fake.with_scale(**SMALL | {"seeds": 2}), guards=guards), say=said.append)
    assert any(line.strip() == "guard FAILS: masked, seed 0: loss 5.900, limit 5.500" for line in said)
    (found,) = result["comparisons"]
    assert found["verdict"] == result["verdict"] == "inconclusive"
    assert found["why"].startswith("budget too small: masked, seed 0: loss 5.900")
    assert result["sentence"].startswith("Inconclusive: ")


def test_wrong_names_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="no preset 'gpu'"):
        run_fake(out, preset="gpu")
    with pytest.raises(UsageError, match="no arm 'maskd'"):
        run_fake(out, only_arm="maskd")
    with pytest.raises(UsageError, match="--seeds is 0"):
        run_fake(out, seeds=0)
    with pytest.raises(UsageError, match="no claim 'elektra'"):
        claim("elektra", out=out)
    with pytest.raises(UsageError, match=r"webmath has several claims\.\nGive one of them: webmath_extraction, webmath_images, webmath_text\."):
        claim("webmath", out=out)
    assert not out.exists()


def test_the_folder_of_another_claim_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "measured.json").write_text('{"slug": "croco", "preset": "smoke", "identity": {}}')
    with pytest.raises(UsageError, match="is the folder of the claim croco at preset smoke"):
        run_fake(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["measured.json"]


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        run_fake(tmp_path)
    with pytest.raises(UsageError, match="is a file, and --out names a folder"):
        run_fake(tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_a_claim_measures_with_is_missed_before_anything_is_trained(tmp_path: Path) -> None:
    without = dataclasses.replace(fake.CLAIM, packages={"no_such_scorer": "generation"})
    with pytest.raises(MissingDependency, match=r"needs the package 'no-such-scorer'(.|\n)*headstart\[generation\]"):
        run_fake(tmp_path / "out", without)
    assert not (tmp_path / "out").exists()
    assert load_claim("spdf").packages.keys() == {"sacrebleu", "rouge_score"}, "of its figures beside the loss, measured behind every training"


def test_a_comparison_of_what_the_claim_does_not_have_is_refused_at_the_start(tmp_path: Path) -> None:
    for comparison in (Comparison("causal", "maskd"), Comparison("causal", "masked", tasks=("third",))):
        with pytest.raises(UsageError, match=r"compares (maskd|third), which it does not have"):
            run_fake(tmp_path / "out", dataclasses.replace(fake.CLAIM, comparisons=(comparison,)))
    assert not (tmp_path / "out" / "runs").exists()


def test_an_arm_without_its_corpus_is_refused_at_the_start(tmp_path: Path) -> None:
    """That of its start too; an arm that is its start, untrained, needs none."""
    start = Arm("start", "causal-lm", corpus="old")
    for arm in (Arm("causal", "causal-lm", corpus="old"), Arm("causal", "causal-lm", start=start)):
        with pytest.raises(UsageError, match="trains on 'old', which its data do not have"):
            run_fake(tmp_path / "out", fake.with_scale(arms=(arm,), learning_rates=(1e-3,), seeds=1, repeats=1))
    assert not (tmp_path / "out" / "runs").exists()
    assert not Arm("none", "causal-lm", trained=False, start=start).reads


def with_a_task_of_causal(*comparisons: Comparison) -> Claim:
    """Two arms without training; one of them alone has what a second task measures."""

    def open_data(scale: Scale, folder: Path) -> Data:
        found = fake.open_data(scale, folder)
        return dataclasses.replace(found, tasks=(*found.tasks, Task("tokens", lambda use: Score(0.25, beside={"seen": 3.0}), arms=("causal",))))

    arms = (Arm("causal", "causal-lm", trained=False), Arm("masked", "mlm", trained=False))
    declared = fake.with_scale(arms=arms, learning_rates=(1e-3,), seeds=1, repeats=1)
    return dataclasses.replace(declared, open_data=open_data, comparisons=comparisons)


def test_an_arm_without_what_a_task_measures_is_not_asked(tmp_path: Path) -> None:
    told: list[str] = []
    declared = with_a_task_of_causal(Comparison("causal", "masked", tasks=("first",)))
    causal, masked = run_fake(tmp_path, declared, say=told.append)["arms"]
    assert (set(causal["runs"][0]["tasks"]), set(masked["runs"][0]["tasks"])) == ({"first", "tokens"}, {"first"})
    assert "4 measurements on dev for choices, 3 on test" in told[0]
    assert "tokens: seen: causal 3" in told


def test_a_comparison_on_what_an_arm_is_not_measured_on_is_refused_at_the_start(tmp_path: Path) -> None:
    for over in ((), ("tokens",)):
        with pytest.raises(UsageError, match="compares masked on tokens, which it is not measured on"):
            run_fake(tmp_path / "out", with_a_task_of_causal(Comparison("causal", "masked", tasks=over)))
    assert not (tmp_path / "out" / "runs").exists()


def test_the_first_result_of_a_fresh_clone_has_a_place() -> None:
    """git keeps no empty folder: claims/results is there only once a result is."""
    assert results_folder() == Path(fake.__file__).parents[2] / "claims" / "results"


def test_a_scale_has_the_comparisons_of_its_arms() -> None:
    scale: Scale = fake.CLAIM.presets["cpu"]
    assert [(one.a, one.b) for one in fake.CLAIM.comparisons_of(scale)] == [("causal", "masked"), ("masked", "none")]
    fewer = dataclasses.replace(scale, arms=scale.arms[:2])
    assert [(one.a, one.b) for one in fake.CLAIM.comparisons_of(fewer)] == [("causal", "masked")]
