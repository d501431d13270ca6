"""The verdict from measured points: helps, should help, does not help, not enough evidence; and what it says beside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.core.words import rounded_up
from headstart.verbs._advise_lines import ranking_lines, shortened_line
from headstart.verbs._advise_verdict import CANDIDATE, GIVEN, RANDOM, judge, no_trial

SPLITS = np.array([0.01, -0.01, 0.004, -0.006, 0.002])


def arm(name: str, kind: str, *means: float, spread: float = 1.0) -> dict[str, Any]:
    """Points that double, the last at an eighth of the budget. Each point has its own small deviations."""
    flops = [0.0] if kind != CANDIDATE else [1e11 / 8 / 2 ** (len(means) - 1 - i) for i in range(len(means))]
    points = [
        {"rung": i, "flops": f, "step": i, "values": list(mean + spread * np.roll(SPLITS, i + len(name)))}
        for i, (f, mean) in enumerate(zip(flops, means, strict=True))
    ]
    return {"arm": name, "kind": kind, "points": points, "full": None, "gain_now": None, "gain": None, "fitted": False, "dropped_after": None}


def judged(*arms: dict[str, Any], evidence: str = "labels", left_out: tuple[dict[str, Any], ...] = (), **budget: float) -> dict[str, Any]:
    info: dict[str, Any] = {
        "budget": {"flops": 1e11, "minutes": 10.0} | budget,
        "arms": list(arms),
        "metric": "accuracy",
        "evidence": evidence,
        "left_out": list(left_out),
        "candidates": [{"arm": entry["arm"]} for entry in arms if entry["kind"] == CANDIDATE],
    }
    judge(info)
    return info


def test_a_clear_lead_helps_and_is_told_with_its_figures() -> None:
    info = judged(arm("random start", RANDOM, 0.70), arm("clm", CANDIDATE, 0.74, 0.78, 0.81, 0.83))
    verdict = info["verdict"]
    assert (verdict["word"], verdict["winner"]) == ("helps", "clm")
    assert info["ranking"] == ["clm", "random start"]
    assert "after 12% of its run accuracy is 0.830 against 0.700 of the best random start" in verdict["sentence"]
    assert info["arms"][1]["fitted"]
    assert info["arms"][1]["full"]["value"] > 0.83
    assert info["arms"][1]["gain"]["value"] == pytest.approx(info["arms"][1]["full"]["value"] - 0.70)


def test_a_lead_that_only_the_whole_budget_gives_should_help() -> None:
    info = judged(arm("random start", RANDOM, 0.80, spread=0.3), arm("clm", CANDIDATE, 0.60, 0.68, 0.74, 0.79, spread=0.3))
    assert info["verdict"]["word"] == "should help", info["verdict"]


def test_a_method_that_stays_behind_does_not_help_and_has_no_winner() -> None:
    info = judged(arm("random start", RANDOM, 0.80), arm("clm", CANDIDATE, 0.60, 0.60, 0.61, 0.60))
    verdict = info["verdict"]
    assert (verdict["word"], verdict["winner"]) == ("does not help", None)
    assert verdict["sentence"].startswith("Do not pre-train with this budget")
    assert info["ranking"][0] == "random start"
    assert any("not even 128 times the budget" in note for note in verdict["notes"])


def test_a_curve_that_rises_names_the_budget_that_would_do() -> None:
    info = judged(arm("random start", RANDOM, 0.84, spread=0.1), arm("clm", CANDIDATE, 0.60, 0.66, 0.71, 0.75, spread=0.1))
    verdict = info["verdict"]
    assert verdict["word"] == "does not help", verdict
    named = [note for note in verdict["notes"] if "--budget.minutes" in note]
    assert named, verdict
    assert float(named[0].split("--budget.minutes ")[1].split()[0]) > 10


def test_equal_arms_are_not_enough_evidence() -> None:
    info = judged(arm("random start", RANDOM, 0.80, spread=3), arm("clm", CANDIDATE, 0.80, 0.81, 0.80, 0.81, spread=3))
    assert info["verdict"]["word"] == "not enough evidence"
    low, high = info["verdict"]["gain_now"]["ci95"]
    assert low < 0 < high


def test_two_methods_that_overlap_are_not_told_apart() -> None:
    random = arm("random start", RANDOM, 0.60)
    info = judged(random, arm("clm", CANDIDATE, 0.74, 0.78, 0.81, 0.83, spread=2), arm("mlmm", CANDIDATE, 0.74, 0.78, 0.81, 0.83, spread=2))
    assert info["verdict"]["word"] == "helps"
    assert any(note.startswith("Not enough evidence that") for note in info["verdict"]["notes"])
    apart = judged(random, arm("clm", CANDIDATE, 0.74, 0.78, 0.81, 0.83), arm("mlmm", CANDIDATE, 0.61, 0.61, 0.61, 0.61))
    assert not any(note.startswith("Not enough evidence that") for note in apart["verdict"]["notes"])


def test_the_best_random_start_is_the_rival_not_the_weakest() -> None:
    info = judged(arm("random a", RANDOM, 0.50), arm("random b", RANDOM, 0.82), arm("clm", CANDIDATE, 0.79, 0.80, 0.81, 0.81))
    assert info["verdict"]["word"] != "helps"
    assert "against 0.820" in info["verdict"]["sentence"]


def test_the_gain_is_one_number_over_the_best_random_start_in_table_and_sentence() -> None:
    """The table once showed a bootstrap of the forecast, the sentence a t interval of what was measured."""
    arms = arm("random a", RANDOM, 0.60), arm("random b", RANDOM, 0.70), arm("causal", CANDIDATE, 0.76), arm("other", CANDIDATE, 0.72)
    info = judged(*arms) | {"look": {}}
    info["candidates"] = [{"arm": name, "minutes": 8.0} for name in ("causal", "other")]
    info["budget"]["run_minutes"] = 8.0
    now = info["arms"][2]["gain_now"]
    assert now["over"] == "random b"
    assert now["value"] == pytest.approx(0.06)
    assert now["ci95"] != pytest.approx(info["arms"][2]["gain"]["ci95"], abs=1e-3), "the forecast's interval is another"
    shown = f"{now['value']:+.3f}", f"{now['ci95'][0]:+.3f} to {now['ci95'][1]:+.3f}"
    row = next(line for line in ranking_lines(info) if " causal " in line)
    for text in shown:
        assert text in row
        assert text in info["verdict"]["sentence"]
    assert "of the best random start" in info["verdict"]["sentence"]
    assert "the best random start" in next(line for line in ranking_lines(info) if " random b " in line)
    assert info["arms"][3]["gain_now"]["value"] == pytest.approx(0.02), "of every arm over the same start"


def test_the_best_of_several_methods_must_be_better_than_luck_among_so_many() -> None:
    """Alone a gain of .055 is clear of noise; as the best of six it is not."""
    lead = arm("clm", CANDIDATE, 0.755)
    alone = judged(arm("random start", RANDOM, 0.70), lead)
    assert alone["verdict"]["word"] == "helps", alone["verdict"]
    assert "corrected" not in alone["verdict"]["sentence"]
    others = [arm(f"method {i}", CANDIDATE, 0.70 - 0.001 * i) for i in range(5)]
    many = judged(arm("random start", RANDOM, 0.70), arm("clm", CANDIDATE, 0.755), *others)
    assert many["verdict"]["word"] == "not enough evidence", many["verdict"]
    assert "corrected for 6 arms" in many["verdict"]["sentence"]
    assert many["arms"][1]["gain_now"]["ci95"] == alone["arms"][1]["gain_now"]["ci95"], "the interval is that of one arm"


def test_one_point_makes_no_curve_and_the_note_is_a_sentence() -> None:
    info = judged(arm("random start", RANDOM, 0.70), arm("clm", CANDIDATE, 0.74))
    assert any(note.startswith("One measured point makes no curve") for note in info["verdict"]["notes"])


@pytest.mark.parametrize(("minutes", "said"), [(7.41, "7.5"), (7.5, "7.5"), (31.2, "32"), (123.0, "130"), (0.0514, "0.052"), (1000.0, "1000")])
def test_minutes_that_would_do_are_rounded_up(minutes: float, said: str) -> None:
    assert rounded_up(minutes) == said


def test_three_points_make_no_curve_and_that_is_said() -> None:
    info = judged(arm("random start", RANDOM, 0.70), arm("clm", CANDIDATE, 0.74, 0.78, 0.81))
    assert not info["arms"][1]["fitted"]
    assert any("3 points are too few for a curve" in note for note in info["verdict"]["notes"])
    assert "should reach" not in info["verdict"]["sentence"]


def test_a_given_model_may_win_as_it_is() -> None:
    info = judged(arm("random start", RANDOM, 0.60), arm("bert as it is", GIVEN, 0.90), arm("clm", CANDIDATE, 0.62, 0.64, 0.65, 0.66))
    assert info["verdict"]["winner"] == "bert as it is"
    assert "as it is accuracy is 0.900" in info["verdict"]["sentence"]


def test_without_labels_every_verdict_says_that_it_is_weaker() -> None:
    info = judged(arm("random start", RANDOM, 0.70), arm("clm", CANDIDATE, 0.74, 0.78, 0.81, 0.83), evidence="no labels")
    assert "Without labels this is weak" in info["verdict"]["sentence"]


def test_no_trial_names_what_would_do() -> None:
    plateau = {"method": "electra", "why": "plateau", "minutes": 33.0}
    assert "electra would with about --budget.minutes 33" in judged(left_out=(plateau,))["verdict"]["sentence"]
    without = {"method": "clm", "why": "no rows", "minutes": None}
    assert judged(left_out=(without,))["verdict"]["sentence"] == "No method can be tried on this data (clm: no rows)."
    info: dict[str, Any] = judged(left_out=())
    assert info["ranking"] == []


def test_where_several_methods_are_too_many_it_says_so() -> None:
    candidates = [{"arm": "mlm", "method": "mlm"}, {"arm": "clm", "method": "causal-lm"}]
    info = {"budget": {"minutes": 6.0, "needed_minutes": 15.2}, "left_out": [], "candidates": candidates}
    verdict = no_trial(info)
    assert verdict["sentence"] == "No trial fits into a fifth of 6:00: give --budget.minutes 16 or more."
    assert verdict["notes"] == ["Fewer methods need fewer minutes: --methods mlm, for example."]
    assert no_trial(info | {"candidates": candidates[:1]})["notes"] == []


def test_a_trial_that_is_cut_short_names_whom_there_is_no_time_for() -> None:
    """It ended with "and only clm", and the best random start was that of the network that was not named."""
    assert shortened_line(0.0331, ["clm"], ["mlm"]).endswith("the trial ends after 3.3% of a run, and there is time for clm, not for mlm.")
    assert shortened_line(0.5, ["clm", "mlm"], []).endswith("the trial ends after 50.0% of a run.")
