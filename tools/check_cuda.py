"""What only a GPU can show, in one script: the same numbers as on the CPU, CUDA graphs equal to plain steps, exact resume, speed.

    python tools/check_cuda.py --out results.json [--device cpu] [--steps 60] [--seconds 200]

`--device cpu` runs the same script without a GPU, to try it. Exit 1 when a check fails; every figure is in the JSON either way, which is written
after each check. What would begin after `--seconds` is named in it, and counts as failed. The first method is checked in more ways than the others.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart import methods
from headstart.core import float8, hardware
from headstart.core.config import replace_nested
from headstart.core.errors import Interrupted
from headstart.core.files import write_json
from headstart.core.rng import Rng
from headstart.core.run import now, read_lines
from headstart.engine.guard import Guard
from headstart.engine.optim import OptimizerConfig, build_optimizer, step_unless
from headstart.engine.trainer import Trainer
from headstart.verbs.config import preset_config
from headstart.verbs.pretrain import pretrain, versions
from headstart.verbs.profile import profile

METHODS = ("causal-lm", "mlm", "electra")
Report = dict[str, Any]


def same_draws(device: str) -> Report:
    """The counter-based generator gives the CPU's bits on the device."""
    rows = torch.arange(1000)
    cpu, other = (Rng.at(3, 5, rows.to(d)) for d in ("cpu", device))
    assert torch.equal(cpu.bits("mask", 64), other.bits("mask", 64).cpu())
    assert torch.equal(cpu.uniform("u", 64), other.uniform("u", 64).cpu())
    assert torch.equal(cpu.integers("i", 30522, 64), other.integers("i", 30522, 64).cpu())
    return {"bits": 64_000}


def long_rows_repeat(device: str) -> Report:
    """The gradients of causal attention over rows of 1,024, ten times: the same bits. A backward pass that adds in an order of its own would end the
    promise that a run which was killed is the undisturbed one."""
    from torch.nn.functional import scaled_dot_product_attention

    given = [torch.randn(4, 8, 1024, 64, generator=torch.Generator().manual_seed(part)).to(device, torch.bfloat16) for part in range(3)]
    first: list[torch.Tensor] | None = None
    unlike = 0
    for _ in range(10):
        parts = [part.clone().requires_grad_() for part in given]
        scaled_dot_product_attention(*parts, is_causal=True).square().sum().backward()
        found = [part.grad for part in parts if part.grad is not None]
        unlike += first is not None and not all(torch.equal(a, b) for a, b in zip(first, found, strict=True))
        first = first or found
    assert not unlike, f"{unlike} of 9 repetitions have other bits"
    return {"repetitions": 10, "unlike": unlike}


def guard_neither_waits_nor_writes(device: str) -> Report:
    """A step whose loss is NaN leaves the weights as they are, and the host waits for the device at no step (on a CPU there is no waiting)."""
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)).to(device)
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw"))
    guard = Guard(torch.device(device), "stop", 10)
    values, steps = torch.tensor([1.0, math.nan, 1.0], device=device), torch.arange(3, device=device)
    norm = torch.ones((), device=device)
    after_first: dict[str, torch.Tensor] = {}
    for step in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter) * values[step]
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error" if step else "default")  # the first step makes the states
        try:
            step_unless(optimizer, guard.watch(values[step], norm, steps[step]))
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        after_first = after_first or copy.deepcopy(model.state_dict())
    assert guard.report().first_bad == 1
    assert all(torch.equal(value, after_first[name]) for name, value in model.state_dict().items())
    return {"steps": 3}


def same_products_in_8_bits(device: str) -> Report:
    """8-bit products of a dense layer, forward and backward, are the CPU's to the rounding of bf16."""
    if not float8.supported(torch.device(device)):
        return {"supported": False}
    random = torch.Generator().manual_seed(0)
    x, weight, upstream = (torch.randn(shape, generator=random) for shape in ((250, 64), (96, 64), (250, 96)))
    found = []
    for place in ("cpu", device):
        leaves = [tensor.to(place).requires_grad_() for tensor in (x, weight)]
        with torch.autocast(place, torch.bfloat16):
            y = float8.linear(leaves[0], leaves[1])
        found.append([y.detach().cpu().float(), *(g.cpu() for g in torch.autograd.grad(y, leaves, upstream.to(place).bfloat16()))])
    gaps = [float((a - b).norm() / b.norm()) for a, b in zip(found[1], found[0], strict=True)]
    assert max(gaps) < 1e-2, gaps
    return {"relative_differences": gaps}


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_lines(run / "metrics.jsonl")]


def train(slug: str, data: Path, out: Path, device: str, steps: int, **settings: Any) -> Report:
    """A fresh run; its losses, its speed after the start, its decisions."""
    shutil.rmtree(out, ignore_errors=True)
    base = {"budget.steps": steps, "trainer.log_every": 1, "trainer.evaluate_every": steps, "trainer.checkpoint_every": steps}
    start = time.perf_counter()
    run = pretrain(slug, data, out=out, device=device, say=lambda line: None, **{**base, **settings})
    last = list(read_lines(out / "metrics.jsonl"))[-1]
    decisions = run.info["decisions"]
    return {
        "losses": losses(out),
        "tokens_per_second": last["tokens_per_second"],
        "data_wait_share": last["data_wait_share"],
        "mfu": last["mfu"],
        "wall_s": round(time.perf_counter() - start, 2),
        "precision": decisions["precision"],
        "cuda_graph": decisions["cuda_graph"],
        "seconds_per_step": decisions["seconds_per_step"],
    }


def graph_equals_plain(slug: str, data: Path, out: Path, device: str, steps: int) -> Report:
    """One CUDA graph an update gives the losses of plain updates, dropout included."""
    settings = {"method.dropout": 0.1} if slug != "causal-lm" else {}
    plain = train(slug, data, out / "plain", device, steps, **{"trainer.cuda_graph": "off"}, **settings)
    graph = train(slug, data, out / "graph", device, steps, **{"trainer.cuda_graph": "on"}, **settings)
    gap = max(abs(a - b) for a, b in zip(plain["losses"], graph["losses"], strict=True))
    report = {"largest_loss_difference": gap, "plain": summary(plain), "graph": summary(graph)}
    report["speedup"] = graph["tokens_per_second"] / max(plain["tokens_per_second"], 1e-9)
    assert gap < 2e-2, report
    return report


def float8_follows_bf16(slug: str, data: Path, out: Path, device: str, steps: int) -> Report:
    """A run with 8-bit products has the losses of the run in bf16, within 2 %."""
    if not float8.supported(torch.device(device)):
        return {"supported": False}
    few = min(steps, 60)
    eight, sixteen = (train(slug, data, out / name, device, few, precision=name) for name in ("fp8", "bf16"))
    gap = max(abs(a / b - 1) for a, b in zip(eight["losses"], sixteen["losses"], strict=True))
    assert gap < 2e-2, (eight["losses"], sixteen["losses"])
    return {"largest_relative_difference": gap, "steps": few, "fp8": summary(eight), "bf16": summary(sixteen)}


def close_to_cpu(slug: str, data: Path, out: Path, device: str, steps: int) -> Report:
    """fp32 on the device follows fp32 on the CPU: the same masks, the same rows, losses within float noise."""
    few = min(steps, 20)
    settings = {"precision": "fp32", "trainer.cuda_graph": "off", "method.dropout": 0.0}
    cpu = train(slug, data, out / "cpu", "cpu", few, **settings)["losses"]
    other = train(slug, data, out / "other", device, few, **settings)["losses"]
    if slug == "electra":  # a sample that lies between two tokens may fall either way: only what comes before the first sampled text is compared
        few = next(i for i, record in enumerate(read_lines(out / "cpu" / "metrics.jsonl")) if record["phase"] == "joint")
    gap = max(abs(a - b) for a, b in zip(cpu[:few], other[:few], strict=True))
    assert gap < 5e-3, (cpu, other)
    return {"largest_loss_difference": gap, "steps": few}


def resumes_exactly(slug: str, data: Path, out: Path, device: str, steps: int) -> Report:
    """Stopped in the middle and started again: the metrics of the undisturbed run, bit for bit."""
    whole = train(slug, data, out / "whole", device, steps, **{"trainer.checkpoint_every": max(1, steps // 4)})["losses"]
    folder, stop = out / "stopped", steps // 2
    shutil.rmtree(folder, ignore_errors=True)

    def stop_in_the_middle(trainer: Trainer) -> None:
        if trainer.step == stop:
            trainer.stop_requested.set()

    settings = {"budget.steps": steps, "trainer.log_every": 1, "trainer.evaluate_every": steps, "trainer.checkpoint_every": max(1, steps // 4)}
    with after_each_step(stop_in_the_middle), suppress(Interrupted):
        pretrain(slug, data, out=folder, device=device, say=lambda line: None, **settings)
    pretrain(slug, data, out=folder, device=device, say=lambda line: None, **settings)
    again = losses(folder)
    if again != whole:
        differ = [(i, a, b) for i, (a, b) in enumerate(zip(whole, again, strict=True)) if a != b]
        twice = train(slug, data, out / "twice", device, steps, **{"trainer.checkpoint_every": max(1, steps // 4)})["losses"]
        raise AssertionError(f"{differ[:3]}; undisturbed, the run {'repeats' if twice == whole else 'does not repeat either: it is not the resume'}")
    return {"steps": steps, "stopped_after": stop}


@contextmanager
def after_each_step(work: Callable[[Trainer], None]) -> Iterator[None]:
    """Within it, `work` is called with the trainer after every step of every run of this process."""
    count = Trainer.count

    def counted(self: Trainer, *args: Any) -> None:
        count(self, *args)
        work(self)

    Trainer.count = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Trainer.count = count  # type: ignore[method-assign]


def no_step_waits(slug: str, data: Path, out: Path, device: str, steps: int) -> Report:
    """Between two lines of the log no step waits for the device, copies of its batch included: torch refuses it (on a CPU there is no waiting)."""
    advance, seen = Trainer.advance, 0

    def watched(self: Trainer, *args: Any) -> None:
        nonlocal seen
        seen += 1
        begun = max(start for _, start, _ in self.spans if start <= self.step)
        if device == "cuda" and self.step > begun + 1:  # a phase's first steps make the optimiser's states
            torch.cuda.set_sync_debug_mode("error")
        try:
            advance(self, *args)
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    Trainer.advance = watched  # type: ignore[method-assign]
    try:
        train(slug, data, out, device, min(steps, 30), **{"trainer.cuda_graph": "off"})
    finally:
        Trainer.advance = advance  # type: ignore[method-assign]
    return {"steps": seen}


def compiled_follows_plain(slug: str, data: Path, out: Path, device: str, steps: int) -> Report:
    """A compiled run has the losses of a plain one, and compiles its training step alone: not once more for evaluations, samples or the export."""
    from torch._dynamo.utils import counters

    few = min(steps, 30)
    settings = {"trainer.evaluate_every": max(1, few // 3), "method.dropout": 0.0}
    plain = train(slug, data, out / "plain", device, few, **settings, **{"trainer.cuda_graph": "off"})
    report: Report = {"seconds": {"plain": plain["wall_s"]}, "tokens_per_second": {"plain": plain["tokens_per_second"]}, "graphs": {}}
    for graph in ("off", "on"):
        torch.compiler.reset()  # what was compiled for the run before would serve this one
        counters.clear()
        name = f"compiled, CUDA graph {graph}"
        compiled = train(slug, data, out / graph, device, few, **settings, **{"trainer.compile": "on", "trainer.cuda_graph": graph})
        report["graphs"][name] = counters["stats"]["unique_graphs"]
        report["seconds"][name], report["tokens_per_second"][name] = compiled["wall_s"], compiled["tokens_per_second"]
        gap = max(abs(a / b - 1) for a, b in zip(compiled["losses"], plain["losses"], strict=True))
        report["largest_relative_difference"] = max(gap, report.get("largest_relative_difference", 0.0))
    assert report["largest_relative_difference"] < 2e-2, report
    assert all(1 <= count <= 3 for count in report["graphs"].values()), report  # the network, and the loss with and without an incomplete block
    return report


def a_batch_that_does_not_fit_is_cut(slug: str, data: Path, out: Path, device: str, steps: int) -> Report:
    """With 2 GiB of a GPU's memory free a batch of 4096 rows is trained in micro-batches, captured or not, with evaluations beside (a CPU's rows are
    extrapolated, not tried)."""
    if device != "cuda":
        return {"micro_batch": None}
    torch.cuda.empty_cache()
    taken = torch.empty(torch.cuda.mem_get_info()[0] - 2 * 2**30, dtype=torch.uint8, device=device)
    found = {}
    for graph in ("off", "on"):
        train(slug, data, out / graph, device, 8, **{"trainer.cuda_graph": graph, "trainer.evaluate_every": 4, "batch": 4096})
        found[graph] = json.loads((out / graph / "run.json").read_text())["decisions"]["micro_batch"]
    del taken
    assert all(1 <= rows < 4096 for rows in found.values()), found
    return {"micro_batch": found}


def profile_names_what_works(slug: str, data: Path, out: Path, device: str, steps: int) -> Report:
    """`headstart profile` finds the kernels of a step, and nothing that only bears a name around them."""
    config = replace_nested(preset_config(methods.load(slug), "tiny")[1], {"data": (str(data),), "device": device, "out": out})
    found = profile(slug, config, say=lambda line: None)
    last = found.phases[-1]
    assert last.operations, last
    assert 0 < sum(ms for _, ms, _ in last.operations) <= 3 * last.step_ms + 1, last
    return {"step_ms": last.step_ms, "kinds": last.kinds, "longest": last.operations[:5], "peak_bytes": last.peak_bytes}


def processes_train_as_one(slug: str, data: Path, out: Path, device: str, steps: int) -> Report:
    """DDP and FSDP2 follow one process: two processes over NCCL on two GPUs, or over gloo on a CPU. On one GPU a process that torchrun started, alone
    in its group of NCCL."""
    world = 2 if device == "cpu" else min(2, torch.cuda.device_count())
    few = min(steps, 20)
    settings = {"precision": "fp32", "trainer.cuda_graph": "off", "method.dropout": 0.0}
    alone = train(slug, data, out / "alone", device, few, **settings)["losses"]
    gaps = {}
    for mode in ("ddp", "fsdp")[:world]:
        shutil.rmtree(out / mode, ignore_errors=True)
        told: Report = {**settings, "budget.steps": few, "trainer.log_every": 1, "trainer.evaluate_every": few, "trainer.checkpoint_every": few}
        told |= {"data": data, "out": out / mode, "device": device, "trainer.parallel": mode}
        flags = [word for name, value in told.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world)]
        done = subprocess.run([*starter, "-m", "headstart", "pretrain", slug, *flags], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        gaps[mode] = max(abs(a - b) for a, b in zip(alone, losses(out / mode), strict=True))
    assert max(gaps.values()) < 5e-3, gaps
    return {"processes": world, "largest_loss_difference": gaps, "steps": few}


def summary(report: Report) -> Report:
    return {key: value for key, value in report.items() if key != "losses"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cuda_check.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/cuda-check"))
    parser.add_argument("--data", default="builtin:python-docs", help="text to train on")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=math.inf, help="what would begin later is left out")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    args = parser.parse_args()
    from headstart.data.text.config import TextConfig
    from headstart.data.text.store import prepare_text

    began = time.perf_counter()
    args.work.mkdir(parents=True, exist_ok=True)
    store = prepare_text([args.data], args.work / "store", TextConfig(vocab_size=4096)).folder
    result: Report = {"name": "cuda_check", "prepare_s": round(time.perf_counter() - began, 1), "checks": {}}
    checks: list[tuple[str, Callable[[], Report]]] = [
        ("same_draws", lambda: same_draws(args.device)),
        ("products in 8 bits", lambda: same_products_in_8_bits(args.device)),
        ("long rows repeat", lambda: long_rows_repeat(args.device)),
        ("guard", lambda: guard_neither_waits_nor_writes(args.device)),
    ]
    of_first = (compiled_follows_plain, a_batch_that_does_not_fit_is_cut, profile_names_what_works, processes_train_as_one)
    for number, slug in enumerate(args.methods):
        for check in (no_step_waits, close_to_cpu, graph_equals_plain, resumes_exactly, float8_follows_bf16, *(of_first if number == 0 else ())):
            place = args.work / f"{slug}-{check.__name__}"
            checks.append((f"{slug}: {check.__name__}", lambda s=slug, c=check, p=place: c(s, store, p, args.device, args.steps)))  # type: ignore[misc]
    failed = 0
    for name, check in checks:
        start = time.perf_counter()
        try:
            if start > began + args.seconds:
                raise TimeoutError("the time was over")
            outcome: Report = {"passed": True, **check()}
        except Exception as error:
            failed += 1
            outcome = {"passed": False, "error": f"{type(error).__name__}: {str(error)[:500]}", "where": traceback.format_exc()[-1500:]}
        outcome["seconds"] = round(time.perf_counter() - start, 1)
        result["checks"][name] = outcome
        shown = json.dumps({key: value for key, value in outcome.items() if key != "where"}, default=str)[:400]
        print(f"{'ok  ' if outcome['passed'] else 'FAIL'} {name}: {shown}", flush=True)
        result |= {"hardware": hardware.describe(), "versions": versions(), "command": "python tools/check_cuda.py", "date": now()}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, result)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
