"""OC-GFN's claim: how arms look for modes, and that they pay alike. Its smoke preset runs with all others in test_electra.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.claims._claim import Arm, Model, Use
from headstart.claims.oc_gfn import (
    CLAIM,
    REPLAYING,
    adapted,
    exact_share,
    flops_of_a_call,
    flow_of,
    landscape,
    modes_task,
    open_data,
    remarks,
    success,
)
from headstart.core.errors import UsageError
from headstart.core.files import write_json
from headstart.data.environments.landscapes import TFBind8
from headstart.data.environments.sequences import Dna
from headstart.data.environments.store import EnvironmentStore
from headstart.methods.oc_gfn.config import OCGFNConfig
from headstart.methods.oc_gfn.method import OCGFN

OPTIONS: dict[str, Any] = {**CLAIM.scale("smoke").options, "calls": 100, "early_calls": 20, "updates": 200, "curve": (2, 3)}


@pytest.fixture(scope="module")
def table() -> TFBind8:
    return landscape(OPTIONS)[0]


def use(folder: Path, arm: str, setting: tuple[float, int, bool] = (1e-3, 2, False), pretraining: float = 0.0) -> Use:
    """An arm on an untrained network of 4-letter words."""
    (folder / arm / "export").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    OCGFN(OCGFNConfig(hidden_size=32), EnvironmentStore(Path(), {}, Dna(4))).export(folder / arm / "export")
    return Use(Model(Arm(arm, "oc_gfn"), 0, folder / arm, None, pretraining, 0, 0.0, 0.0), "test", setting, 0, "cpu")


@pytest.mark.slow
def test_every_arm_has_as_many_calls_and_who_is_held_equal_as_many_flops(table: TFBind8, tmp_path: Path) -> None:
    """`oc_gfn` comes first, as in the claim; its pre-training is charged to all counted tasks alike."""
    options, place = {**OPTIONS, "tasks": (1, 2)}, tmp_path / "adapted"
    arms = [arm.name for arm in CLAIM.scale("smoke").arms]
    found = {arm: adapted(use(tmp_path, arm, pretraining=4e6 if arm == "oc_gfn" else 0.0), table, 1, options, place) for arm in arms}
    assert all(100 <= one["calls"] < 100 + 2 * 4 * 5 for one in found.values()), "one update asks for 2 objects of 4 letters, each edge for 4 more"
    ours = found["oc_gfn"]
    paid = (ours["flops"] + 4e6 / 2) / ours["calls"]
    assert flops_of_a_call(table, 1, 0, options, place) == paid
    for arm in REPLAYING:
        ratio = found[arm]["flops"] / (paid * found[arm]["calls"])
        assert ratio == pytest.approx(1, abs=0.05)
        assert found[arm]["beside"]["training FLOPs beside oc_gfn's and its share of pre-training"] == ratio
    assert found["gfn_scratch_plain"]["flops"] < 0.9 * found["gfn_scratch"]["flops"]
    assert found["random"]["flops"] == found["mcmc"]["flops"] == 0
    assert ours["beside"]["training FLOPs with all of the pre-training"] == ours["flops"] + 4e6


def test_who_is_held_equal_waits_for_the_arm_that_it_is_held_equal_to(table: TFBind8, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"oc_gfn, which has not been adapted to made up yet \(seed 0\)"):
        adapted(use(tmp_path, "gfn_scratch"), table, 1, OPTIONS, tmp_path / "adapted")


def test_on_the_task_for_choices_the_best_setting_is_what_others_are_held_equal_to(table: TFBind8, tmp_path: Path) -> None:
    folder = tmp_path / "oc_gfn" / table.names[0].replace(" ", "-") / "seed-0"
    folder.mkdir(parents=True)
    for name, share, flops in (("a", 0.3, 500), ("b", 0.4, 900), ("c", 0.1, 100)):
        write_json(folder / f"{name}.json", {"share": share, "flops": flops, "calls": 100, "pretraining": 0.0})
    assert flops_of_a_call(table, 0, 0, OPTIONS, tmp_path) == 9.0


def test_an_adaptation_is_not_repeated(table: TFBind8, tmp_path: Path) -> None:
    one, place = use(tmp_path, "random"), tmp_path / "adapted"
    first = adapted(one, table, 1, OPTIONS, place)
    (written,) = place.rglob("*.json")
    before = written.stat().st_mtime_ns
    assert adapted(one, table, 1, {**OPTIONS, "calls": 5}, place) == first
    assert written.stat().st_mtime_ns == before


def test_beside_the_share_of_modes_stand_calls_updates_flops_and_the_papers_axis(table: TFBind8, tmp_path: Path) -> None:
    task = modes_task(table, OPTIONS, tmp_path / "adapted")
    score = task.measure(use(tmp_path, "oc_gfn", (1e-3, 8, False)))
    beside = score.beside
    assert 0 <= beside["modes at 20 calls"] <= score.value <= 1
    assert 0 <= beside["modes built after 2 updates"] <= beside["modes built after 3 updates"] <= score.value, "what is built is scored"
    assert beside["calls"] >= 100
    assert 3 <= beside["updates"] < 13, "8 objects of 4 letters, each edge with another"
    assert beside["training FLOPs"] > 1e6
    assert 0 < beside["L1 of the policy to the reward"] < 2
    assert 1e-3 < beside["mean reward of the best 100"] < 1
    chance = task.measure(use(tmp_path, "random", (1e-3, 8, False))).beside
    assert chance["updates"] >= 13
    assert "training FLOPs" not in chance


def test_an_exact_sampler_finds_what_its_chances_say() -> None:
    """Four objects, one of them a mode with half of the reward: of two distinct ones it is there with what 2 draws or a little more give."""
    y = np.zeros((1, 16))
    y[0, 3] = 1.0
    table = TFBind8(("one",), y)
    assert table.modes(0).sum() == 1
    assert exact_share(table, 0, 16) == pytest.approx(1.0, abs=1e-3)
    few, more = exact_share(table, 0, 1), exact_share(table, 0, 3)
    assert 0.9 < few <= more, "nearly all of the reward is the mode's"


def test_success_is_the_share_of_requested_objects(tmp_path: Path) -> None:
    one = use(tmp_path, "oc_gfn")
    flow = flow_of(one.model.export, "cpu")
    assert success(flow, 0) < 0.05
    with torch.no_grad():  # a network that copies: the second layer passes what the first says of the outcome's next letter
        for parameter in flow.parameters():
            parameter.zero_()
        size = flow.environment.encoding_size
        for letter in range(4):
            for place in range(4):
                flow.trunk[0].weight[4 * letter + place, size + 5 * place + letter] = 1.0  # y has the letter there
                flow.trunk[0].weight[4 * letter + place, 5 * place + 4] = 1.0  # s has none there yet
                if place:
                    flow.trunk[0].weight[4 * letter + place, 5 * (place - 1) + 4] = -1.0  # but all before it
                flow.trunk[2].weight[letter, 4 * letter + place] = 1.0
                flow.trunk[0].bias[4 * letter + place] = -1.0
            flow.head_pf.weight[letter, letter] = 100.0
    assert success(flow, 0) == 1.0


def test_the_ablations_change_one_thing_each() -> None:
    arms = {arm.name: dict(arm.settings) for arm in CLAIM.scale("cpu").arms if arm.trained}
    assert arms == {"oc_gfn": {}, "oc_gfn_no_ot": {"method.objective": "db"}, "oc_gfn_no_ct": {"method.contrastive": False}}


def test_a_gain_per_step_that_is_none_per_call_is_said_in_these_words() -> None:
    def said(ours: tuple[float, float], theirs: tuple[float, float]) -> str:
        names = ("modes", "modes: modes built after 50 updates")
        figures = {"oc_gfn": dict(zip(names, ours, strict=True)), "gfn_scratch_plain": dict(zip(names, theirs, strict=True))}
        (sentence,) = remarks(figures)
        return sentence

    told = said((0.5, 0.2), (0.6, 0.1))
    assert told.startswith("A gain per step that is none per reward call: modes built after 50 updates, 20.0% by oc_gfn and 10.0% from scratch; ")
    assert "at equal reward calls 50.0% and 60.0%" in told
    assert said((0.7, 0.2), (0.6, 0.1)).startswith("A gain per step and per reward call: ")
    assert said((0.7, 0.1), (0.6, 0.1)).startswith("No gain per step: ")
    assert remarks({"oc_gfn": {"modes": 0.5}}) == []


def test_what_the_policy_built_is_told_apart_from_what_was_only_scored(tmp_path: Path) -> None:
    """From scratch all scored objects were built; Q's were not. Every word of this table is a mode."""
    table = TFBind8(("for choices", "even"), np.ones((2, 256)))
    options = {**OPTIONS, "calls": 200, "curve": range(1, 200)}
    shares = {}
    for arm in ("gfn_scratch_plain", "oc_gfn"):
        found = adapted(use(tmp_path, arm, (1e-3, 8, False)), table, 1, options, tmp_path / "adapted")
        shares[arm] = found["share"], found["beside"][f"modes built after {found['beside']['updates']} updates"]
    assert shares["gfn_scratch_plain"][0] == shares["oc_gfn"][0] == 200 / 256
    assert shares["oc_gfn"][1] < 200 / 256 <= shares["gfn_scratch_plain"][1]


def test_only_arms_with_a_network_that_can_be_asked_are_asked_for_objects() -> None:
    data = open_data(CLAIM.scale("smoke"), Path("unused"))
    asked = {arm.name for arm in CLAIM.scale("cpu").arms if "success" in [task.name for task in data.tasks_of(arm)]}
    assert asked == {"oc_gfn", "random_init", "oc_gfn_no_ot", "oc_gfn_no_ct"}
    assert {task.name for task in data.tasks_of("gfn_scratch")} == {"modes", "grid"}
