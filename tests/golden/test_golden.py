"""Nothing that decides a loss has moved unnoticed: see record.py."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from headstart import methods
from headstart.core.config import replace_nested
from headstart.verbs.config import preset_config
from tests.golden.record import FOLDER, OF_METHOD, STEPS, corpus, machine_class, output, trace, two_rows

ELSEWHERE = 1e-4
"""Relative tolerance on other machines. Between the kernels for AVX-512, AVX2 and none of one machine the largest difference was 2e-7."""


def recorded(slug: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{slug}.json").read_text(encoding="utf-8")))


def assert_equal(found: torch.Tensor, wanted: torch.Tensor, machine: dict[str, str]) -> None:
    if machine == machine_class():
        assert torch.equal(found, wanted), f"largest difference {float((found - wanted).abs().max()):.3g}"
    else:
        torch.testing.assert_close(found, wanted, rtol=ELSEWHERE, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("slug", OF_METHOD)
def test_fifty_losses_are_the_recorded_ones(slug: str) -> None:
    golden, found = recorded(slug), trace(slug)
    assert len(golden["losses"]) == STEPS
    assert found["phases"] == golden["phases"]
    assert_equal(torch.tensor(found["losses"], dtype=torch.float64), torch.tensor(golden["losses"], dtype=torch.float64), golden["machine"])


@pytest.mark.parametrize("slug", OF_METHOD)
def test_the_recorded_weights_load_and_answer_as_recorded(slug: str, tmp_path: Path) -> None:
    """Parameter names and the backbone's arithmetic."""
    tensors = load_file(FOLDER / f"{slug}.safetensors")
    method_class = methods.load(slug)
    settings = {group: of_group(slug, group) for group in ("method", method_class.data_group)}
    store = method_class.prepare(corpus(slug, tmp_path), tmp_path / "store", method_class.DataConfig(**settings[method_class.data_group]))
    method = method_class(replace_nested(preset_config(method_class, "tiny")[1].method, settings["method"]), store)
    batch, wanted = two_rows(method), tensors.pop("output")
    for name, value in batch.items():
        assert torch.equal(tensors.pop(name), value)
    if slug == "electra":
        method.copied.fill_(True)  # the weights are those of a finished run
    method.backbone().load_state_dict(tensors)
    assert_equal(output(method, batch), wanted, recorded(slug)["machine"])


def of_group(slug: str, group: str) -> dict[str, Any]:
    """The recorded run's settings of one group, by name."""
    return {name.removeprefix(f"{group}."): value for name, value in OF_METHOD[slug].items() if name.startswith(f"{group}.")}


def test_the_trained_traces_went_down_and_passed_every_phase() -> None:
    """A trace of a run that learns nothing would notice little."""
    of_method = {"causal-lm": ["train"], "mlm": ["causal", "masked"], "electra": ["causal", "generator", "joint"]}
    of_method |= {"mae": ["train"], "droppos": ["train"], "satmaepp": ["train"], "croco": ["train"], "oc_gfn": ["train"]}
    of_method["interleaved-lm"] = ["continued"]
    of_method["prop"] = ["train"]
    of_method["medical_bert"] = ["causal", "masked"]
    of_method["bioptimus"] = ["1-token-0.15", "2-whole-word-0.15", "3-whole-word-0.2", "4-whole-word-0.2"]
    assert of_method.keys() == OF_METHOD.keys()
    for slug, phases in of_method.items():
        golden = recorded(slug)
        assert list(dict.fromkeys(golden["phases"])) == phases
        assert all(math.isfinite(loss) for loss in golden["losses"])
        for phase in phases:
            losses = [loss for loss, name in zip(golden["losses"], golden["phases"], strict=True) if name == phase]
            assert losses[-1] < losses[0], f"{slug}, {phase}"


def test_the_golden_files_are_small() -> None:
    files = [path for path in Path(FOLDER).iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
