"""A step with masked weights against `torch.nn.utils.prune.custom_from_mask`, which masks in the forward pass: the same network, masks and update.

python -m benchmarks.sparse_step [--preset base] [--batch 4] [--seq 256] [--level 0.75] [--rounds 5] [--device cpu]
    [--out benchmarks/results/sparse_step-cpu.json]

torch's pruning keeps a second copy of each weight and a mask of its dtype, and computes weight x mask in every forward pass and again for the
gradient. Ours keeps one byte a weight, and puts the zeros back after the update. Both sides train one method by the same update, AdamW and clipping
included, and take turns; the median of the rounds counts. Beside them the dense step: what is over it is what masking costs. Before anything is timed
both make two steps from the same weights, and must have the same weights then.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from benchmarks.parts import Cost, IdRows, cost_of, in_turns, median_ratio, method_of
from benchmarks.result import write_result
from headstart.core.errors import HeadstartError
from headstart.engine.optim import OptimizerConfig, build_optimizer, set_learning_rate
from headstart.engine.update import Update
from headstart.interventions.spdf.config import SparsityConfig
from headstart.interventions.spdf.intervention import Sparse
from headstart.methods.causal_lm.config import PRESETS

VOCABULARY = 50257
OPTIMIZER = OptimizerConfig(learning_rate=6e-4, beta2=0.95, weight_decay=0.1, clip_norm=1.0)
"""SPDF's GPT-2 Small."""


class Side:
    """One way of training: dense, sparse as ours, or pruned as torch does it."""

    def __init__(self, name: str, preset: str, seq: int, batch: int, level: float, vocabulary: int, device: torch.device) -> None:
        config = PRESETS[preset].method
        config = type(config)(**{**vars(config), "sequence_length": seq})
        self.inner = method_of("causal-lm", config, vocabulary, device)
        self.method: Any = self.inner
        if name != "dense":
            self.method = Sparse(self.inner, SparsityConfig(level=level), seed=0).to(device)
        if name == "pruned":
            sparse, self.method = self.method, self.inner
            prune_like(self.inner, sparse)
        ids = IdRows.random(batch, seq, vocabulary).batch(np.arange(batch))["input_ids"]
        self.rows = {"input_ids": torch.from_numpy(ids).to(device)}
        optimizer = build_optimizer(self.method, OPTIMIZER)
        set_learning_rate(optimizer, OPTIMIZER.learning_rate)
        self.update = Update(self.method, optimizer, clip_norm=OPTIMIZER.clip_norm, precision="fp32", device=device, seed=0, total_steps=1000)
        self.device, self.numbers, self.step = device, torch.arange(batch, device=device), 0

    def advance(self) -> None:
        self.update([self.rows], [self.numbers], self.step, "train")
        self.step += 1

    def timed(self) -> Cost:
        with cost_of(self.device) as cost:
            self.advance()
        return cost

    def weights(self) -> dict[str, Tensor]:
        """What the network multiplies with next; torch's pruning makes it when it is asked."""
        found = {}
        for name, module in self.inner.named_modules():
            if hasattr(module, "weight_orig"):
                found[name] = (module.weight_orig * module.weight_mask).detach()
            elif isinstance(getattr(module, "weight", None), Tensor):
                found[name] = module.weight.detach()
        return found


def prune_like(network: nn.Module, sparse: Sparse) -> None:
    """Puts the masks of `sparse` around the layers of `network` by torch's own pruning."""
    for matrix, pruned in zip(sparse.matrices, sparse.buffers_now(), strict=True):
        prune.custom_from_mask(network.get_submodule(matrix.name.removesuffix(".weight")), "weight", ~pruned)


def unlike(ours: Side, theirs: Side) -> float:
    """The largest difference between the weights of two sides, in the largest weight's size."""
    a, b = ours.weights(), theirs.weights()
    return max(float((a[name] - b[name]).abs().max() / b[name].abs().max().clamp(min=1e-12)) for name in b)


def masks_bytes(side: Side) -> int:
    """Bytes of everything that is kept for the masks: buffers, and second copies of weights."""
    buffers = {id(value): value for module in side.method.modules() for name, value in module.named_buffers(recurse=False) if is_mask(module, name)}
    copies = [module.weight for module in side.inner.modules() if hasattr(module, "weight_orig")]
    return sum(value.numel() * value.element_size() for value in [*buffers.values(), *copies])


def is_mask(module: nn.Module, name: str) -> bool:
    return name == "weight_mask" or "/" in name  # ours are named as the parameter, "/" for "."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base", choices=list(PRESETS))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--level", type=float, default=0.75)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    names = ("dense", "ours", "pruned")
    sides = {name: Side(name, args.preset, args.seq, args.batch, args.level, args.vocabulary, device) for name in names}
    for _ in range(2):
        for side in sides.values():
            side.advance()
    if (apart := unlike(sides["ours"], sides["pruned"])) > 1e-4:
        raise HeadstartError(f"After two steps the weights differ by {apart:g}.", "Nothing is timed before both do the same.")
    found = in_turns({name: side.timed for name, side in sides.items()}, args.rounds)
    walls = {name: [cost.wall for cost in costs] for name, costs in found.items()}
    seconds = {name: round(statistics.median(times), 4) for name, times in walls.items()}
    print(", ".join(f"{name} {value} s" for name, value in seconds.items()))
    name = f"sparse_step-{device.type}"
    write_result(
        args.out or Path(f"benchmarks/results/{name}.json"),
        name=name,
        what=f"seconds of a step, causal-lm {args.preset}, batch {args.batch} x {args.seq}, fp32, sparsity {args.level:g}",
        ours={"seconds": seconds["ours"], "over_dense": round(median_ratio(walls["ours"], walls["dense"]), 4), "bytes": masks_bytes(sides["ours"])},
        peer={
            "seconds": seconds["pruned"],
            "over_dense": round(median_ratio(walls["pruned"], walls["dense"]), 4),
            "bytes": masks_bytes(sides["pruned"]),
            "what": "torch.nn.utils.prune.custom_from_mask",
        },
        ratio=median_ratio(walls["pruned"], walls["ours"]),
        must=1.0,
        aim=1.05,
        command=f"python -m benchmarks.sparse_step --preset {args.preset} --batch {args.batch} --seq {args.seq} --level {args.level:g}"
        f" --rounds {args.rounds}",
        dense={"seconds": seconds["dense"]},
        weights_apart=apart,
    )


if __name__ == "__main__":
    main()
