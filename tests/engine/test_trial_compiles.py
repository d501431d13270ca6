"""What a trial finds out of compiling: the steps of a budget in minutes are those of the compiled method."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.core.errors import MachineError
from headstart.engine.budget import Budget
from headstart.engine.optim import OptimizerConfig
from headstart.engine.trial import COMPILE_SECONDS, Decisions, Trial, worth_trying
from tests.engine.toy import Toy, ToyRows

CPU = torch.device("cpu")
WAITS = 0.03


class Map(nn.Module):
    """A linear map that takes its time unless it is compiled."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            time.sleep(WAITS)
        return self.linear(x)


class Slow(Toy):
    """A method that compiling helps much."""

    backend: Any = "eager"

    def __init__(self) -> None:
        super().__init__()
        self.map = Map(self.map)  # type: ignore[assignment]

    def compile_parts(self) -> None:
        self.map.compile(backend=self.backend)


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def decide(method: Toy, budget: Budget, compile: Any) -> tuple[Decisions, list[str]]:
    rows, said = ToyRows(), []

    def load(step: int, start: int, stop: int) -> dict[str, Tensor]:
        return {"x": torch.from_numpy(rows.x[start:stop])}

    trial = Trial(
        method, OptimizerConfig(), global_batch=8, load=load, device=CPU, seed=0, tokens_per_row=1, seconds=0.02, say=said.append
    )
    return trial.decide(budget, precision="fp32", micro_batch=8, compile=compile), said


def test_a_budget_in_minutes_has_the_steps_of_the_compiled_method() -> None:
    method, budget = Slow(), Budget(minutes=1.0)
    before = method.map.linear.weight.detach().clone()  # type: ignore[union-attr]
    plain, silent = decide(method, budget, "off")
    compiled, said = decide(method, budget, "on")
    assert not plain.compile
    assert not silent
    assert plain.seconds_per_step["train"] > WAITS
    assert compiled.compile
    assert compiled.seconds_per_step["train"] < WAITS
    assert compiled.total_steps > plain.total_steps
    assert said == ["Compiling, to see what it brings: this takes a minute or two."]
    assert "plainly" in compiled.why["compile"]
    assert torch.equal(method.map.linear.weight, before)  # type: ignore[union-attr]


def test_the_method_is_plain_afterwards_and_compiled_again_from_the_cache() -> None:
    seen: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        seen.append(len(inputs))
        return graph.forward

    method, rows = Slow(), torch.from_numpy(ToyRows().x[:8])
    method.backend = backend
    decide(method, Budget(steps=5), "on")
    assert len(seen) == 1
    began = time.perf_counter()
    method.map(rows)
    assert time.perf_counter() - began > WAITS, "it is not compiled now"
    method.compile_parts()
    method.map(rows)
    assert len(seen) == 1


def test_a_compiler_that_fails_is_said() -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        raise RuntimeError("no C++ compiler")

    method = Slow()
    method.backend = broken
    with pytest.raises(MachineError, match=r"torch\.compile fails here"):
        decide(method, Budget(steps=5), "on")
    assert decide(method, Budget(steps=5), "off")[0].total_steps == 5


def test_what_is_worth_trying() -> None:
    """At the speed that is hoped for a sixth of the time goes, which must be twice the price of compiling."""
    gpu = torch.device("cuda")
    assert worth_trying("auto", CPU, 1e9) == (False, "measured no gain that repays it on a CPU")
    assert worth_trying("on", CPU, 1.0)[0]
    assert not worth_trying("off", gpu, 1e9)[0]
    assert not worth_trying("auto", gpu, 11.9 * COMPILE_SECONDS)[0]
    assert worth_trying("auto", gpu, 12.1 * COMPILE_SECONDS)[0]


def test_timing_says_that_it_goes_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.core.progress.SILENT_S", 0.0)
    decide(Slow(), Budget(steps=5), "off")
    assert "time the steps of this run: " in capsys.readouterr().err
