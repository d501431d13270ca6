"""A training step against what a user of transformers runs (`shared/peers/transformers_peers.py`, as it is): tokens/s and peak memory.

python -m benchmarks.training_step electra|causal-lm [--size small] [--batch 16] [--seq 128] [--device cpu] [--precision fp32] [--compile] ...

Both sides are processes of their own on random data, with the same widths, lengths, batch, dropout and number of threads. They alternate, and the
median of the rounds counts. `--precision auto` lets ours take the faster of fp32 and bf16, as a run does; the peer's default is fp32.
Ours is the update of a run (`engine.update`): loss, backward, clipping, optimiser, the guard against numbers that are not finite.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.parts import median_ratio, method_of
from benchmarks.result import write_result
from headstart import methods

MUST = {("electra", "cpu"): 1.8, ("causal-lm", "cpu"): 1.2, ("electra", "cuda"): 3.0, ("causal-lm", "cuda"): 2.6}
AIM = {("electra", "cpu"): 2.5, ("causal-lm", "cpu"): 1.5, ("electra", "cuda"): 5.0, ("causal-lm", "cuda"): 2.6}
PEERS = Path(os.environ.get("HEADSTART_PEERS", "../shared/peers")) / "transformers_peers.py"


def method_and_preset(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The method with the peer's sizes, and its preset."""
    preset = methods.load(arguments.what).presets["base" if arguments.what == "causal-lm" else arguments.size]
    method = method_of(arguments.what, preset.method, 50257 if arguments.what == "causal-lm" else 30522, arguments.device)
    if arguments.our_compile:
        method.compile_parts()
    return method, preset


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """This process trains a few steps: tokens/s (median of blocks) and peak memory in MiB."""
    from headstart.engine.guard import Guard
    from headstart.engine.metrics import peak_memory_bytes
    from headstart.engine.optim import OptimizerConfig, build_optimizer
    from headstart.engine.update import Update

    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    method, preset = method_and_preset(arguments)
    config = OptimizerConfig(**preset.optimizer)
    vocab = method.vocab_size
    ids = torch.randint(1000, vocab - 1, (arguments.batch, arguments.seq), device=device)
    batches = [{"input_ids": ids}]
    rows = [torch.arange(arguments.batch, device=device)]
    phase = method.phases(1000)[-1].name

    def seconds(precision: Any, steps: int, blocks: int) -> float:
        update = Update(
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
        wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        for step in range(arguments.warmup):
            scalars = update(batches, rows, step, phase)
        assert torch.isfinite(scalars["loss"]).item()
        times = []
        for block in range(blocks):
            wait()
            began = time.perf_counter()
            for step in range(steps):
                update(batches, rows, 100 + block * steps + step, phase)
            wait()
            times.append((time.perf_counter() - began) / steps)
        return statistics.median(times)

    precisions = ["fp32", "bf16"] if arguments.precision == "auto" else [arguments.precision]
    chosen = min(precisions, key=lambda precision: seconds(precision, 2, 1)) if len(precisions) > 1 else precisions[0]
    step_s = seconds(chosen, arguments.steps, arguments.repeats)
    peak_mib = round(peak_memory_bytes(device) / 2**20)
    found = {"tokens_per_s": round(arguments.batch * arguments.seq / step_s, 1), "step_ms": round(1e3 * step_s, 2), "peak_mib": peak_mib}
    return found | {"precision": chosen} | ({"mfu": round(mfu(method, ids, step_s, phase), 4)} if arguments.mfu else {})


def mfu(method: Any, ids: torch.Tensor, step_s: float, phase: str) -> float:
    """The share of the rate of a large bf16 product here that a step of these rows reaches; FLOPs counted on four of the rows."""
    from headstart.core.hardware import matmul_flops
    from headstart.core.rng import Rng
    from headstart.engine.flops import count_flops
    from headstart.engine.method import Context

    few = ids[:4]
    context = Context(0, 1000, phase, Rng.at(0, 0, torch.arange(len(few), device=ids.device)), ids.device)
    flops = count_flops(lambda: method.loss({"input_ids": few}, context)["loss"].backward()) / len(few) * len(ids)
    return flops / step_s / matmul_flops(ids.device, torch.bfloat16)


def theirs(arguments: argparse.Namespace) -> list[str]:
    """The peer's command."""
    precision = "fp32" if arguments.precision == "auto" else arguments.precision
    numbers = ("batch", "seq", "device", "warmup", "steps", "repeats", "threads")
    command = [sys.executable, str(PEERS), arguments.what, "--size", arguments.size, "--precision", precision]
    command += [part for name in numbers for part in (f"--{name}", str(getattr(arguments, name)))]
    return command + (["--compile"] if arguments.compile else [])


def last_json(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["electra", "causal-lm"])
    parser.add_argument("--size", default="small", choices=["small", "base"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "auto"])
    parser.add_argument("--compile", action="store_true", help="of the peer")
    parser.add_argument("--our-compile", action="store_true", help="of ours")
    parser.add_argument("--mfu", action="store_true", help="of ours: the share of the matrix peak too")
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
    command = sys.argv[1:]
    mine, peer = [], []
    for _ in range(arguments.rounds):
        peer.append(last_json(theirs(arguments)))
        mine.append(last_json([sys.executable, "-m", "benchmarks.training_step", *command, "--worker"]))
        print(f"ours {mine[-1]['tokens_per_s']:,.0f} tokens/s, {mine[-1]['peak_mib']:,} MiB ({mine[-1]['precision']});"
              f" peer {peer[-1]['tokens_per_s']:,.0f} tokens/s, {peer[-1]['peak_mib']:,} MiB")  # fmt: skip
    sides = [{name: statistics.median(entry[name] for entry in found) for name in ("tokens_per_s", "step_ms", "peak_mib")} for found in (mine, peer)]
    shape = f"{arguments.what}-{arguments.size}" if arguments.what == "electra" else "causal-lm-gpt2"
    name = f"step-{shape}-{arguments.device}-{arguments.precision}" + ("-compiled" if arguments.compile else "")
    write_result(
        arguments.out or Path("benchmarks/results") / f"{name}.json",
        name=name,
        what=f"tokens/s of a training step, {arguments.batch} x {arguments.seq}, {arguments.threads} threads; the sides in turns,"
        f" medians of {arguments.rounds} rounds",
        ours={**sides[0], "precision": mine[-1]["precision"]},
        peer={**sides[1], "precision": "fp32" if arguments.precision == "auto" else arguments.precision, "compiled": arguments.compile},
        ratio=median_ratio([entry["tokens_per_s"] for entry in mine], [entry["tokens_per_s"] for entry in peer]),
        must=MUST[(arguments.what, arguments.device)],
        aim=4.0 if arguments.precision == "auto" and arguments.what == "electra" else AIM[(arguments.what, arguments.device)],
        memory_ratio=round(sides[0]["peak_mib"] / sides[1]["peak_mib"], 3),
        command="python -m benchmarks.training_step " + " ".join(command),
    )


if __name__ == "__main__":
    main()
