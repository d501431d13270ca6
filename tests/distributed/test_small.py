"""Two processes compute what one computes: small methods, every optimiser, both ways of being parallel."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.distributed.small import CASES, ROWS, train
from tests.running import torchrun

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """case/mode -> what two processes found."""
    out = tmp_path_factory.mktemp("two") / "found.json"
    done = torchrun(2, "tests.distributed.small", out)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(out.read_text()))


@pytest.mark.promise("Two processes (DDP, FSDP2) train as one does over 20 steps: losses, norms, weights and averages, with every optimiser.")
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", list(CASES))
def test_two_processes_train_as_one(name: str, mode: str, on_two: dict[str, dict[str, Any]]) -> None:
    alone, both = train(**CASES[name]), on_two[f"{name}/{mode}"]
    loose = 1000 if name == "bf16" else 1  # a rounded logit moves the loss by a hundredth; the curve stays the same
    assert both["losses"] == pytest.approx(alone["losses"], rel=2e-5 * loose)
    assert both["shares"] == pytest.approx(alone["shares"], rel=1e-6)
    assert both["norms"] == pytest.approx(alone["norms"], rel=2e-4 * loose)
    for what in ("weights", "averages"):
        assert both[what].keys() == alone[what].keys()
        for parameter, values in alone[what].items():
            assert flat(both[what][parameter]) == pytest.approx(flat(values), abs=1e-4 * loose), (what, parameter)


@pytest.mark.promise("A method's running statistics are over the global batch, whatever the number of processes.")
def test_running_statistics_are_global(on_two: dict[str, dict[str, Any]]) -> None:
    alone = train(**CASES["adamw"])["seen"]
    for mode in ("ddp", "fsdp"):
        assert on_two[f"adamw/{mode}"]["seen"] == pytest.approx(alone, rel=1e-5)
    assert train(**CASES["micro-batches"])["seen"] == pytest.approx(alone, rel=1e-5)


@pytest.mark.promise("Gradient accumulation synchronises once an update, not once a micro-batch.")
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_micro_batches_reduce_gradients_once(mode: str, on_two: dict[str, dict[str, Any]]) -> None:
    assert on_two[f"adamw/{mode}"]["talks"] == on_two[f"micro-batches/{mode}"]["talks"] > 0


def test_fsdp_cuts_what_ddp_repeats(on_two: dict[str, dict[str, Any]]) -> None:
    whole = on_two["adamw/ddp"]["parts"]
    cut = on_two["adamw/fsdp"]["parts"]
    assert whole[0] == whole[1] == sum(cut)
    assert max(cut) < 0.65 * whole[0]


def test_the_cases_can_tell_a_mean_of_means_from_a_mean() -> None:
    """The ranks' halves of a batch keep different numbers of targets."""
    import torch

    from headstart.core.rng import Rng

    counts = [(Rng.at(1, 0, torch.arange(start, start + ROWS // 2)).uniform("kept", 6) < 0.4).sum() for start in (0, ROWS // 2)]
    assert counts[0] != counts[1]


def flat(values: Any) -> list[float]:
    return [x for value in values for x in flat(value)] if isinstance(values, list) else [values]
