"""Every method trains, is evaluated and shown on a GPU: no tensor of the CPU meets one of the device, and no step waits (tests/pretended_gpu.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from headstart.core import hardware
from headstart.engine.budget import Budget
from headstart.engine.config import OptimizerConfig
from headstart.engine.evaluation import evaluate
from headstart.engine.guard import Guard
from headstart.engine.method import Batch, Method, Phase
from headstart.engine.optim import build_optimizer
from headstart.engine.samples import shown
from headstart.engine.trial import Trial
from headstart.engine.update import Update
from tests.golden.record import OF_METHOD
from tests.methods.test_captured_steps import ROWS, built
from tests.pretended_gpu import GPU, OnGpu, PretendedGpu, pretended_gpu, to_gpu

__all__ = ["pretended_gpu"]


def waits_of_a_step(method: Method, phase: Phase, batches: list[Batch], gpu: PretendedGpu) -> list[str]:
    """What the host waits for in an update that is not the first of its phase."""
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(phase.trainable is None or phase.trainable(name))
    optimizer = build_optimizer(method, OptimizerConfig(learning_rate=1e-3), cuda_graph=True)
    guard = Guard(GPU, "stop", 10)
    update = Update(method, optimizer, clip_norm=1.0, precision="fp32", device=GPU, seed=0, total_steps=90, guard=guard)
    found: list[str] = []
    for step, batch in enumerate(batches[:2]):
        there = {name: value.to(GPU) for name, value in batch.items()}
        rows = torch.arange(ROWS, device=GPU)
        gpu.waits = [] if step else None
        scalars = update([there], [rows], step, phase.name)
        found, gpu.waits = gpu.waits or [], None
        assert scalars["loss"].isfinite().item()
    assert guard.report().first_bad is None
    return found


def trained_and_evaluated(method: Method, batches: list[Batch], gpu: PretendedGpu) -> Phase:
    """A step of every phase, in which nothing waits, and an evaluation; the last phase."""
    for phase in method.phases(90):
        if phase.on_start is not None:
            phase.on_start()
        assert waits_of_a_step(method, phase, batches, gpu) == []
    assert evaluate(method, batches[:1], phase.name, "fp32", GPU, 0, 90)
    return phase


@pytest.mark.parametrize("slug", OF_METHOD)
def test_a_method_on_a_gpu(slug: str, pretended_gpu: PretendedGpu, tmp_path: Path) -> None:
    method, batches = built(slug, tmp_path)
    to_gpu(method).train()
    with pretended_gpu:
        phase = trained_and_evaluated(method, batches, pretended_gpu)
        lines, _, drawings = shown(method, batches[:1], phase.name, "fp32", GPU, 0, 90)
        assert lines or drawings
        assert method.embed({name: value.to(GPU) for name, value in batches[0].items()}).is_cuda
        method.warnings()


def test_a_trial_on_a_gpu(pretended_gpu: PretendedGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "matmul_flops", lambda *asked, **how: 1.0)
    method, batches = built("electra", tmp_path)
    to_gpu(method).train()

    def load(step: int, start: int, stop: int) -> Batch:
        return {name: value[start:stop] for name, value in batches[0].items()}

    trial = Trial(method, OptimizerConfig(), global_batch=ROWS, load=load, device=GPU, seed=0, tokens_per_row=32, seconds=0.0)
    with pretended_gpu:
        told = trial.decide(Budget(steps=90), precision="fp32", micro_batch=2, compile="off", cuda_graph="off")
    assert min(told.flops_per_step.values()) > 0


def test_the_pretended_gpu_refuses_what_a_gpu_refuses(pretended_gpu: PretendedGpu) -> None:
    layer, here = to_gpu(nn.Linear(3, 2)), torch.ones(4, 3)
    with pretended_gpu:
        x = torch.ones(4, 3, device=GPU)
        layer(x).sum().backward()
        assert isinstance(layer.weight.grad, OnGpu)
        assert layer.weight.grad.tolist() == [[4.0] * 3] * 2
        assert (x * torch.tensor(2.0)).sum().item() == 24
        for refused in (
            lambda: x + here,
            lambda: layer(here),
            lambda: torch.stack([x.sum(), here.sum()]),
            lambda: here[torch.arange(2, device=GPU)],
        ):
            with pytest.raises(AssertionError, match="on the CPU"):
                refused()


def test_the_pretended_gpu_notes_what_makes_the_host_wait(pretended_gpu: PretendedGpu) -> None:
    here = torch.ones(4, 3)
    with pretended_gpu:
        x = torch.ones(4, 3, device=GPU)
        pretended_gpu.waits = []
        torch.arange(3, device=GPU) + (x.sum(0) * 2).expand(4, 3).clone()
        assert pretended_gpu.waits == []
        waiting = (
            lambda: float(x.sum()),
            lambda: x[x > 0],
            lambda: x.nonzero(),
            lambda: x.cpu(),
            lambda: here.to(GPU),
            lambda: x.copy_(here),
            lambda: torch.tensor([1, 2], device=GPU),
            lambda: x[torch.tensor([1, 2])],
        )
        for number, work in enumerate(waiting, 1):
            before = len(pretended_gpu.waits)
            work()
            assert len(pretended_gpu.waits) > before, number
