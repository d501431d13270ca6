"""What the engine costs: a step of a run against a bare loop of the same operations.

    python -m benchmarks.engine_overhead [--size tiny|small] [--device cpu]

The bare loop has its batches on the device and does nothing but loss, backward pass, clipping and update, with the same network, the same kernels
and the same optimiser. The run has all of it: loader and its thread, seeds of dropout, guard, schedule, running means, a line of metrics every ten
steps. They take turns; the ratio is the median over the pairs of blocks. That of the processor's time is beside it: on a busy machine only that means
something.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch, as the command line sets it (docs/decisions/0008-threads.md)

import argparse
import copy
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.parts import Cost, IdRows, cost_of, in_turns, median_ratio, method_of, steps_of, trainer_of
from benchmarks.result import write_result
from headstart.core.rng import Rng
from headstart.engine.method import Context
from headstart.engine.optim import OptimizerConfig, build_optimizer
from headstart.methods.causal_lm.config import CausalLMConfig

SIZES: dict[str, tuple[CausalLMConfig, int, int, int, int]] = {  # network, vocabulary, batch, steps of a block, pairs
    "tiny": (CausalLMConfig(), 2048, 32, 10, 30),
    "small": (CausalLMConfig(hidden_size=512, num_layers=8, num_heads=8, intermediate_size=1408, sequence_length=128), 16384, 8, 2, 9),
}


class BareLoop:
    """The loop that a person would write."""

    def __init__(self, method: Any, ids: torch.Tensor) -> None:
        self.method, self.batch = method, {"input_ids": ids}
        self.device = ids.device
        self.parameters = [p for p in method.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(method, OptimizerConfig())
        phase = method.phases(1000)[-1].name
        self.context = Context(0, 1000, phase, Rng.at(0, 0, torch.arange(len(ids), device=self.device)), self.device)

    def __call__(self, steps: int) -> Cost:
        with cost_of(self.device) as cost:
            for _ in range(steps):
                self.optimizer.zero_grad()
                self.method.loss(self.batch, self.context)["loss"].backward()
                torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
                self.optimizer.step()
        return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: all")
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    config, vocab, batch, steps, pairs = SIZES[args.size]
    pairs = args.pairs or pairs
    rows = IdRows.random(4096, config.sequence_length, vocab)
    method = method_of("causal-lm", config, vocab, args.device)
    bare = BareLoop(copy.deepcopy(method), torch.from_numpy(rows.ids[:batch].astype("int64")).to(args.device))
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(method, rows, batch, Path(folder) / "run", steps=10**6)
        with steps_of(trainer) as run:
            run(steps)
            bare(steps)
            found = in_turns({"run": lambda: run(steps), "bare": lambda: bare(steps)}, pairs)
    wall, cpu = ({side: [getattr(cost, kind) for cost in costs] for side, costs in found.items()} for kind in ("wall", "cpu"))
    ratio = median_ratio(wall["run"], wall["bare"])
    mine, theirs = (1e3 * statistics.median(wall[side]) / steps for side in ("run", "bare"))
    work = median_ratio(cpu["run"], cpu["bare"])
    print(f"run {mine:.2f} ms a step, bare loop {theirs:.2f} ms, ratio {ratio:.3f}; of the processor's time {work:.3f}")
    write_result(
        args.out or Path(f"benchmarks/results/engine_overhead-{args.size}-{args.device}.json"),
        name="engine_overhead",
        what=f"ms a step of causal-lm, {config.num_layers} layers of {config.hidden_size}, {batch} x {config.sequence_length}, on {args.device}:"
        f" a run against a bare loop of the same operations; ratio: median over {pairs} pairs of {steps} steps",
        ours={"ms": round(mine, 3), "processor_time_ratio": round(work, 4)},
        peer={"name": "bare loop", "ms": round(theirs, 3)},
        ratio=ratio,
        must=1.03,
        aim=1.01,
        higher_is_better=False,
        command=f"python -m benchmarks.engine_overhead --size {args.size} --device {args.device}",
    )


if __name__ == "__main__":
    main()
