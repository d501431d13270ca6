"""A training step against what a user of transformers runs (`shared/peers/transformers_peers.py`, as it is): tokens/s or images/s, and peak memory.

python -m benchmarks.training_step electra|causal-lm|mae|droppos [--size small] [--batch 16] [--seq 128] [--device cpu] [--precision fp32] ...

Both sides are processes of their own on random data, with the same widths, lengths, batch, dropout and number of threads. They alternate, and the
median of the rounds counts. `--precision auto` lets ours take the faster of fp32 and bf16, as a run does; the peer's default is fp32.
Ours is the update of a run (`engine.update`): loss, backward, clipping, optimiser, the guard against numbers that are not finite. On images it also
cuts, mirrors and normalises them, from stored bytes of 256 pixels a side; the peer begins with pixels that are ready. DropPos has no class in
transformers: its peer is ViTMAE of the same encoder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.parts import image_method_of, median_ratio, method_of
from benchmarks.result import write_result
from headstart import methods
from headstart.backbones.kernels import use_float8

PEERS = Path(os.environ.get("HEADSTART_PEERS", "../shared/peers")) / "transformers_peers.py"


@dataclass(frozen=True)
class Comparison:
    """How a method is compared."""

    peer: str
    """Its name in the peers' script."""
    unit: str
    """What is counted a second."""
    lines: dict[str, tuple[float, float]]
    """Device -> the ratio that must be reached, and that which should."""
    size: str | None = None
    """The preset, where the peer has one size only."""
    name: str | None = None
    """Of the result, where it is not WHAT-SIZE."""


COMPARISONS = {
    "electra": Comparison("electra", "tokens", {"cpu": (1.8, 2.5), "cuda": (3.0, 5.0)}),
    "causal-lm": Comparison("causal-lm", "tokens", {"cpu": (1.2, 1.5), "cuda": (2.6, 2.6)}, "base", "causal-lm-gpt2"),
    "mae": Comparison("mae", "images", {"cpu": (1.3, 1.3), "cuda": (1.6, 1.6)}, "base"),
    "droppos": Comparison("mae", "images", {"cpu": (1.3, 1.3), "cuda": (1.6, 1.6)}, "base"),
}


def method_and_preset(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The method with the peer's sizes, and its preset."""
    preset = methods.load(arguments.what).presets[COMPARISONS[arguments.what].size or arguments.size]
    if COMPARISONS[arguments.what].unit == "images":
        method = image_method_of(arguments.what, preset.method, arguments.device)
    else:
        method = method_of(arguments.what, preset.method, 50257 if arguments.what == "causal-lm" else 30522, arguments.device)
    if arguments.our_fp8:
        use_float8(method)
    if arguments.our_compile:
        method.compile_parts()
    return method, preset


def random_batch(method: Any, preset: Any, arguments: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Token ids, or images as a store keeps them."""
    if COMPARISONS[arguments.what].unit == "images":
        shape = (arguments.batch, len(method.mean), preset.data["size"], preset.data["size"])
        return {"images": torch.randint(256, shape, dtype=torch.uint8, device=arguments.device)}
    return {"input_ids": torch.randint(1000, method.vocab_size - 1, (arguments.batch, arguments.seq), device=arguments.device)}


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """This process trains a few steps: tokens/s or images/s (median of blocks) and peak memory in MiB."""
    from headstart.engine.guard import Guard
    from headstart.engine.metrics import peak_memory_bytes
    from headstart.engine.optim import OptimizerConfig, build_optimizer
    from headstart.engine.update import Update

    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    method, preset = method_and_preset(arguments)
    config = OptimizerConfig(**preset.optimizer)
    batch = random_batch(method, preset, arguments)
    rows = [torch.arange(arguments.batch, device=device)]
    phase = method.phases(1000)[-1].name

    def update_in(precision: Any) -> Update:
        return Update(
            method,
            build_optimizer(method, config, cuda_graph=arguments.cuda_graph),
            clip_norm=config.clip_norm,
            precision=precision,
            device=device,
            seed=0,
            total_steps=1000,
            guard=Guard(device, "stop", 10),
            graph=arguments.cuda_graph,
        )

    def seconds(update: Update, steps: int, blocks: int) -> float:
        wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        for step in range(arguments.warmup):
            scalars = update([batch], rows, step, phase)
        assert torch.isfinite(scalars["loss"]).item()
        times = []
        for block in range(blocks):
            wait()
            began = time.perf_counter()
            for step in range(steps):
                update([batch], rows, 100 + block * steps + step, phase)
            wait()
            times.append((time.perf_counter() - began) / steps)
        return statistics.median(times)

    precisions = ["fp32", "bf16"] if arguments.precision == "auto" else [arguments.precision]
    chosen = min(precisions, key=lambda precision: seconds(update_in(precision), 2, 1)) if len(precisions) > 1 else precisions[0]
    update = update_in(chosen)
    step_s = seconds(update, arguments.steps, arguments.repeats)
    peak_mib = round(peak_memory_bytes(device) / 2**20)
    unit = COMPARISONS[arguments.what].unit
    units = arguments.batch * (arguments.seq if unit == "tokens" else 1)
    found = {f"{unit}_per_s": round(units / step_s, 1 if unit == "tokens" else 3), "step_ms": round(1e3 * step_s, 2), "peak_mib": peak_mib}
    if arguments.kernels:
        found["kernels"] = kernels(lambda step: update([batch], rows, step, phase), device, arguments.kernels)
    return found | {"precision": chosen} | ({"mfu": round(mfu(method, batch, step_s, phase), 4)} if arguments.mfu else {})


def kernels(step: Callable[[int], object], device: torch.device, most: int, steps: int = 3) -> dict[str, Any]:
    """Where the device's time of a step goes: ms by kind of work, and the longest kernels as (name, ms, calls)."""
    from headstart.verbs.profile import is_work, kind_of

    on_device = device.type == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if on_device else [])]
    with torch.profiler.profile(activities=kinds) as profiler:
        for number in range(steps):
            step(10_000 + number)
        if on_device:
            torch.cuda.synchronize(device)
    work = [event for event in profiler.key_averages() if is_work(event, on_device)]
    cost = {event.key: (event.self_device_time_total if on_device else event.self_cpu_time_total) / 1e3 / steps for event in work}
    by_kind: dict[str, float] = {}
    for name, ms in cost.items():
        by_kind[kind_of(name)] = by_kind.get(kind_of(name), 0.0) + ms
    longest = sorted(work, key=lambda event: -cost[event.key])[:most]
    return {
        "all_ms": round(sum(cost.values()), 3),
        "kinds_ms": {kind: round(ms, 3) for kind, ms in sorted(by_kind.items(), key=lambda entry: -entry[1])},
        "longest": [(event.key[:120], round(cost[event.key], 3), round(event.count / steps)) for event in longest],
    }


def mfu(method: Any, batch: dict[str, torch.Tensor], step_s: float, phase: str) -> float:
    """The share of the rate of a large bf16 product here that a step of these rows reaches; FLOPs counted on four of the rows."""
    from headstart.core.hardware import matmul_flops
    from headstart.core.rng import Rng
    from headstart.engine.flops import count_flops
    from headstart.engine.method import Context

    few = {name: value[:4] for name, value in batch.items()}
    count, whole = (len(next(iter(part.values()))) for part in (few, batch))
    device = next(method.parameters()).device
    context = Context(0, 1000, phase, Rng.at(0, 0, torch.arange(count, device=device)), device)
    with torch.compiler.set_stance("force_eager"):  # compiled for four rows it would take a minute, and its kernels are not seen by the counter
        flops = count_flops(lambda: method.loss(few, context)["loss"].backward()) / count * whole
    return flops / step_s / matmul_flops(device, torch.bfloat16)


def theirs(arguments: argparse.Namespace) -> list[str]:
    """The peer's command."""
    precision = "fp32" if arguments.precision == "auto" else arguments.precision
    numbers = ("batch", "seq", "device", "warmup", "steps", "repeats", "threads")
    command = [sys.executable, str(PEERS), COMPARISONS[arguments.what].peer, "--size", arguments.size, "--precision", precision]
    command += [part for name in numbers for part in (f"--{name}", str(getattr(arguments, name)))]
    return command + (["--compile"] if arguments.compile else [])


def last_json(command: list[str], seconds: float | None = None) -> dict[str, Any]:
    """What a command prints last.

    Args:
        seconds: after which it is ended, with all that it started.

    Raises:
        SystemExit: it failed, or took longer.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    try:
        printed, complaints = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise SystemExit(f"{' '.join(command)} was ended after {seconds:.0f} s") from None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{complaints[-2000:]}")
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(COMPARISONS))
    parser.add_argument("--size", default="small", choices=["small", "base"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "auto"])
    parser.add_argument("--compile", action="store_true", help="of the peer")
    parser.add_argument("--our-compile", action="store_true", help="of ours")
    parser.add_argument("--our-fp8", action="store_true", help="of ours: dense layers multiply in 8-bit floating point")
    parser.add_argument("--mfu", action="store_true", help="of ours: the share of the matrix peak too")
    parser.add_argument("--kernels", type=int, default=0, help="of ours: so many of the longest kernels too, and the time by kind of work")
    parser.add_argument("--cuda-graph", action="store_true", help="of ours")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(ours(arguments)))
        return
    comparison, command = COMPARISONS[arguments.what], sys.argv[1:]
    rate = f"{comparison.unit}_per_s"
    mine, peer = [], []
    for _ in range(arguments.rounds):
        peer.append(last_json(theirs(arguments)))
        mine.append(last_json([sys.executable, "-m", "benchmarks.training_step", *command, "--worker"]))
        print(f"ours {mine[-1][rate]:,.1f} {comparison.unit}/s, {mine[-1]['peak_mib']:,} MiB ({mine[-1]['precision']});"
              f" peer {peer[-1][rate]:,.1f} {comparison.unit}/s, {peer[-1]['peak_mib']:,} MiB")  # fmt: skip
    sides = [{name: statistics.median(entry[name] for entry in found) for name in (rate, "step_ms", "peak_mib")} for found in (mine, peer)]
    shape = comparison.name or f"{arguments.what}-{comparison.size or arguments.size}"
    name = f"step-{shape}-{arguments.device}-{arguments.precision}" + ("-compiled" if arguments.compile else "")
    must, aim = comparison.lines[arguments.device]
    size = f"{arguments.batch} x {arguments.seq}" if comparison.unit == "tokens" else f"{arguments.batch} images of 224 x 224"
    write_result(
        arguments.out or Path("benchmarks/results") / f"{name}.json",
        name=name,
        what=f"{comparison.unit}/s of a training step, {size}, {arguments.threads} threads; the sides in turns, medians of {arguments.rounds} rounds",
        ours={**sides[0], "precision": mine[-1]["precision"]},
        peer={**sides[1], "precision": "fp32" if arguments.precision == "auto" else arguments.precision, "compiled": arguments.compile},
        ratio=median_ratio([entry["step_ms"] for entry in peer], [entry["step_ms"] for entry in mine]),  # rates are rounded to tenths
        must=must,
        aim=4.0 if arguments.precision == "auto" and arguments.what == "electra" else aim,
        memory_ratio=round(sides[0]["peak_mib"] / sides[1]["peak_mib"], 3),
        command="python -m benchmarks.training_step " + " ".join(command),
    )


if __name__ == "__main__":
    main()
