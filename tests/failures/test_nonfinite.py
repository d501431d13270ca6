"""NaN and infinity in real runs: on the command line, over several processes, and again from the last checkpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tests.failures.nonfinite import ALONE, BAD, CASES, train, without
from tests.running import torchrun


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("two") / "found.json"
    done = torchrun(2, "tests.failures.nonfinite", out)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(out.read_text()))


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for part in ("weights", "averages"):
        for name, value in expected[part].items():
            torch.testing.assert_close(torch.tensor(found[part][name]), torch.tensor(value), atol=2e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert found["mean"] == pytest.approx(expected["mean"], rel=1e-5)


@pytest.mark.promise("A NaN in the rows of one process of several: no process takes it up, all stop at the same step, the module is named.")
@pytest.mark.slow
@pytest.mark.parametrize(("mode", "policy", "optimizer"), CASES)
def test_a_nan_on_one_process_of_two_leaves_no_trace_on_any(mode: str, policy: str, optimizer: str, on_two: dict[str, Any]) -> None:
    """Weights, weight average and running statistics are those of a run without the bad step (and, with "stop", without those after it)."""
    found = on_two[f"{mode} {policy} {optimizer}"]
    assert found["seen"] == [[BAD, policy == "skip"]] * 2
    assert found["named"] == [None, "layers.1 (output: 24 of 24 values NaN)"]
    assert_close(found, without(policy, optimizer))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_on_one_process_too(policy: str, optimizer: str) -> None:
    found = train(ALONE, "ddp", policy, optimizer, [0, 1, 2, 3, 4])
    assert found["seen"] == [[BAD, policy == "skip"]]
    assert found["named"] == ["layers.1 (output: 48 of 48 values NaN)"]
    expected = without(policy, optimizer)
    assert found["weights"] == expected["weights"]
    assert found["mean"] == expected["mean"]
    if policy == "skip":
        assert found["averages"] == expected["averages"]
