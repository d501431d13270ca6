"""What is read from the curves of continued runs: transient, pay-back step, final forgetting, and what a person is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headstart.tasks.gap import gap
from headstart.verbs.compare import compare
from headstart.verbs.forgetting import Curve, closing_lines, curves, is_constant, lines, outcomes, pay_back_step, transient
from headstart.verbs.pretrain import pretrain
from tests.corpus import documents, write_jsonl
from tests.running import TINY

STEPS = [0, 1, 2, 4, 8]


def write(folder: Path, new: list[float], old: list[float], rates: list[float], whole: tuple[float, float] = (3.0, 3.1)) -> Path:
    """A run with these losses of the sample; of the old text the whole split says `whole` at both ends."""
    folder.mkdir()
    probes: list[dict[str, Any]] = []
    for i, step in enumerate(STEPS):
        probes.append({"step": step, "probe": "held_out_loss/new", "value": new[i]})
        at_end = i in (0, len(STEPS) - 1)
        probes.append({"step": step, "probe": "held_out_loss/old", "value": whole[i > 0] if at_end else old[i]})
        if at_end:
            probes += [{"step": step, "probe": f"held_out_sample/{name}", "value": values[i]} for name, values in (("old", old), ("new", new))]
            probes.append({"step": step, "probe": "bits_per_byte/old", "value": whole[i > 0] / 2})
    (folder / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in probes))
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": i + 1, "learning_rate": rate}) + "\n" for i, rate in enumerate(rates)))
    (folder / "run.json").write_text(json.dumps({"format_version": 1, "status": "running", "decisions": {"total_steps": 8}}))
    return folder


@pytest.fixture
def constant(tmp_path: Path) -> Path:
    return write(tmp_path / "constant", [2.0, 1.95, 1.9, 1.85, 1.8], [2.5, 2.5, 2.5, 2.5, 2.5], [1e-4] * 8)


@pytest.fixture
def rewarmed(tmp_path: Path) -> Path:
    return write(tmp_path / "rewarmed", [2.0, 2.3, 2.1, 1.84, 1.6], [2.5, 2.9, 2.8, 2.7, 2.65], [1e-4, 1e-3, 8e-4, 1e-4], (3.0, 3.2))


def test_a_curve_is_read_on_the_sample_and_its_ends_on_the_whole(rewarmed: Path) -> None:
    old = curves(rewarmed)["old"]
    assert (old.steps, old.losses) == (STEPS, [2.5, 2.9, 2.8, 2.7, 2.65])
    assert (old.first, old.last) == (3.0, 3.2)
    assert old.whole == {0: 3.0, 8: 3.2}


def test_the_pay_back_step_is_the_first_below_the_constant_run(rewarmed: Path, constant: Path) -> None:
    found, base = outcomes([rewarmed, constant])
    assert base == constant
    assert (found[0].pay_back_step, found[1].pay_back_step) == (4, None)
    rise = found[0].transient
    assert rise is not None
    assert (rise.height, rise.step, rise.forgetting) == (pytest.approx(0.4), 1, pytest.approx(0.2))
    assert found[0].parts["old"] == {"first": 3.0, "last": 3.2, "first_bits_per_byte": 1.5, "last_bits_per_byte": 1.6}
    table = lines(found, base)
    assert table[1].endswith("pays back at step")
    assert table[2].split() == ["rewarmed", "2.000", "->", "1.600", "3.000", "->", "3.200", "+0.400", "1", "never", "4"]
    assert table[3].split()[-2:] == ["constant", "rate"]
    assert table[4] == "rewarmed: The rise paid back after 50% of the budget (step 4)."


def test_a_rise_that_never_pays_back_is_said(tmp_path: Path, constant: Path) -> None:
    worse = write(tmp_path / "worse", [2.0, 2.3, 2.2, 2.1, 1.81], [2.5] * 5, [1e-4, 1e-3])
    found, base = outcomes([worse, constant])
    assert found[0].pay_back_step is None
    assert "never paid back within this budget: a constant rate was better" in lines(found, base)[-1]


@pytest.mark.parametrize(
    ("losses", "height", "step", "recovery"),
    [
        ([2.5, 2.9, 2.8, 2.5, 2.6], 0.4, 1, 4),  # back, and it rises once more
        ([2.5, 2.4, 2.9, 2.45, 2.4], 0.4, 2, 4),  # below where it began before it rises: that is no recovery
        ([2.5, 2.9, 2.8, 2.7, 2.51], 0.4, 1, None),
        ([2.5, 2.4, 2.3, 2.2, 2.1], 0.0, 0, 0),
    ],
    ids=["back", "dips-first", "never", "falls"],
)
def test_the_gap_has_its_depth_and_where_it_is_closed(losses: list[float], height: float, step: int, recovery: int | None) -> None:
    """The first statistics of the stability gap (tasks.gap), of minus the loss on old text."""
    found = transient(STEPS, losses)
    assert (found.height, found.step, found.recovery) == (pytest.approx(height), step, recovery)
    assert found.height == pytest.approx(gap(STEPS, [-loss for loss in losses]).depth)
    assert transient([0], [2.5]).recovery == 0, "a run that has just begun"


def test_step_0_is_the_same_model_and_pays_nothing_back() -> None:
    assert pay_back_step(Curve([0, 1], [1.9, 2.0], {}), Curve([0, 1], [2.0, 2.0], {})) is None


@pytest.mark.parametrize(
    ("rates", "constant"), [([1e-3] * 3, True), ([1e-3, 1.0005e-3], True), ([1e-3, 9e-4], False), ([0.0, 0.0], False), ([], False)]
)
def test_a_constant_run_has_one_rate(rates: list[float], constant: bool, tmp_path: Path) -> None:
    assert is_constant(write(tmp_path / "run", [2.0] * 5, [2.0] * 5, rates)) == constant


def test_without_a_constant_run_the_command_for_one_is_said(rewarmed: Path) -> None:
    found, base = outcomes([rewarmed])
    assert base is None
    assert "--rewarm.preset constant" in lines(found, base)[-1]


def test_the_end_says_what_is_left_of_a_rise(rewarmed: Path, tmp_path: Path) -> None:
    """A fall is told as one: nothing negative is left of a rise."""
    told = "The loss on old text rose by 0.400 until step 1, which is normal when a rate rises, and was "
    assert closing_lines(rewarmed)[1] == told + "not back within the run; at the end it lies 0.200 above where it began."
    better = write(tmp_path / "better", [2.0] * 5, [2.5, 2.9, 2.8, 2.7, 2.4], [1e-4, 1e-3], (3.0, 2.9))
    assert closing_lines(better)[1] == told + "back at step 8; at the end it lies 0.100 below where it began."


def test_a_run_at_the_old_rate_is_not_told_to_repeat_itself_at_the_old_rate(tmp_path: Path) -> None:
    """Its rate never rose, so that is not what raised the loss, and it is the very run to compare with."""
    flat = write(tmp_path / "flat", [2.0] * 5, [2.5, 2.9, 2.8, 2.7, 2.65], [1e-4] * 8, (3.0, 3.2))
    assert closing_lines(flat)[1:] == [
        "The loss on old text rose by 0.400 until step 1, and was not back within the run; at the end it lies 0.200 above where it began."
    ]


def test_runs_without_named_parts_have_nothing_to_say(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert outcomes([tmp_path, tmp_path / "nowhere"]) == ([], None)
    assert lines([], None) == []


@pytest.mark.slow
def test_compare_shows_old_and_new_together(tmp_path: Path) -> None:
    """Two continued runs: the table comes first, and stands in comparison.json."""
    for seed, name in enumerate(("old", "new")):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": text} for text in documents(240, seed)])
    settings: dict[str, Any] = TINY | {
        "say": lambda line: None, "budget.steps": 20, "text.held_out_share": 0.4, "trainer.evaluate_every": 10, "trainer.checkpoint_every": 20,
    }  # fmt: skip
    upstream = pretrain("causal-lm", [str(tmp_path / "old.jsonl")], out=tmp_path / "upstream", **settings)
    runs = [
        pretrain("causal-lm", [f"new={tmp_path}/new.jsonl"], out=tmp_path / name, init=upstream.folder, **settings | {"rewarm.preset": name}).folder
        for name in ("relative", "constant")
    ]
    said: list[str] = []
    found = compare(runs, out=tmp_path / "compared", say=said.append, **{"finetune.device": "cpu"})
    assert said[0].startswith("Held-out loss of each part")
    assert [one["run"] for one in found.info["continued"]] == ["relative", "constant"]
    assert set(found.info["continued"][0]["parts"]) == {"new", "old"}
