"""OC-GFN's claim: how arms look for modes, and that they pay alike. Its smoke preset runs with all others in test_electra.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.claims._claim import Arm, Model, Use
from headstart.claims.oc_gfn import CLAIM, adapted, exact_share, flow_of, landscape, success
from headstart.data.environments.landscapes import TFBind8
from headstart.data.environments.sequences import Dna
from headstart.data.environments.store import EnvironmentStore
from headstart.methods.oc_gfn.config import OCGFNConfig
from headstart.methods.oc_gfn.method import OCGFN

OPTIONS: dict[str, Any] = {**CLAIM.scale("smoke").options, "calls": 100, "early_calls": 20, "updates": 200, "flops_per_call": 1e5}


@pytest.fixture(scope="module")
def table() -> TFBind8:
    return landscape(OPTIONS)[0]


def use(folder: Path, arm: str, setting: tuple[float, int, bool] = (1e-3, 8, False)) -> Use:
    """An arm on an untrained network of 4-letter words."""
    (folder / arm / "export").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    OCGFN(OCGFNConfig(hidden_size=32), EnvironmentStore(Path(), {}, Dna(4))).export(folder / arm / "export")
    return Use(Model(Arm(arm, "oc_gfn"), 0, folder / arm, None, 0.0, 0, 0.0, 0.0), "test", setting, 0, "cpu")


@pytest.mark.slow
def test_every_arm_has_as_many_calls_and_who_is_held_equal_as_many_flops(table: TFBind8, tmp_path: Path) -> None:
    found = {arm: adapted(use(tmp_path, arm), table, 1, OPTIONS) for arm in (arm.name for arm in CLAIM.scale("smoke").arms)}
    assert {one["calls"] for one in found.values()} == {100}
    for arm in ("gfn_scratch", "random_init"):
        assert 1 <= found[arm]["flops"] / (OPTIONS["flops_per_call"] * 100) < 1.35, "to one update of objects and one of old ones"
    assert found["gfn_scratch_plain"]["flops"] < found["gfn_scratch"]["flops"]
    assert found["random"]["flops"] == found["mcmc"]["flops"] == 0
    assert all(0 <= one["share_early"] <= one["share"] <= 1 for one in found.values())


def test_an_adaptation_is_not_repeated(table: TFBind8, tmp_path: Path) -> None:
    one = use(tmp_path, "random")
    first = adapted(one, table, 1, OPTIONS)
    (written,) = (tmp_path / "random").glob("adapted-*.json")
    before = written.stat().st_mtime_ns
    assert adapted(one, table, 1, {**OPTIONS, "calls": 5}) == first
    assert written.stat().st_mtime_ns == before


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
