"""Five updates of a small method, of which the third makes a NaN in the rows of the last process: `torchrun ... -m tests.failures.nonfinite OUT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.engine.distributed import ALONE, Ranks, joined
from headstart.engine.ema import Ema
from headstart.engine.guard import Guard
from headstart.engine.method import Batch, Context, Method
from headstart.engine.optim import OptimizerConfig, build_optimizer
from headstart.engine.parallel import Parallel
from headstart.engine.trial import micro_starts
from headstart.engine.update import Update

ROWS, WIDTH, BAD = 8, 6, 2
CPU = torch.device("cpu")


class Trap(nn.Module):
    """Lets numbers through, until it is told to break."""

    broken = False

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return torch.log(x - x) * 0 if self.broken else x  # the logarithm of 0, times 0


class Trapped(Method):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Trap() for _ in range(3))
        self.mean = nn.Buffer(torch.zeros(()))

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        self.layers[1].broken = ctx.step == BAD and int(ctx.rng.rows[-1]) == ROWS - 1
        x = batch["x"]
        for layer in self.layers:
            x = x + layer(x).tanh()
        return {"loss": x.square().mean()}

    def observe(self, scalars: Any) -> None:
        self.mean.lerp_(scalars["loss"], 0.5)


def train(ranks: Ranks, mode: Any, policy: Any, optimizer: Any, steps: list[int]) -> dict[str, Any]:
    """What the guard saw, who was named, and everything that the updates changed."""
    torch.manual_seed(0)
    method = Trapped()
    parallel = Parallel(method, ranks, mode, CPU)
    parallel.enter(unused_parameters=False)
    guard, ema = Guard(CPU, policy, 10), Ema(method, 0.5)
    config = OptimizerConfig(name=optimizer, learning_rate=0.02)
    update = Update(
        method, build_optimizer(method, config), clip_norm=1.0, precision="fp32", device=CPU, seed=0, total_steps=5, parallel=parallel, guard=guard
    )
    micro_batch = ROWS // ranks.world

    def rows_of(step: int) -> tuple[list[Batch], list[Tensor]]:
        starts = micro_starts(ROWS, micro_batch, ranks)
        x = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(step))
        return [{"x": x[start : start + micro_batch]} for start in starts], [torch.arange(start, start + micro_batch) for start in starts]

    for step in steps:
        update(*rows_of(step), step, "train")
        ema.update(guard.found_inf)
    report = guard.report()
    named, _ = update.examine(*rows_of(BAD), BAD, "train")
    with parallel.whole():
        weights = {name: value.detach().tolist() for name, value in method.named_parameters()} if ranks.first else {}
    with ema.swapped(), parallel.whole():
        averages = {name: value.detach().tolist() for name, value in method.named_parameters()} if ranks.first else {}
    seen = [report.first_bad, report.skipped_in_all]
    return {"seen": ranks.gather(seen), "named": ranks.gather(named), "weights": weights, "averages": averages, "mean": float(method.mean)}


CASES = [(mode, policy, optimizer) for mode in ("ddp", "fsdp") for policy in ("stop", "skip") for optimizer in ("adamw", "muon")]


def main(out: Path) -> None:
    with joined("cpu") as ranks:
        found = {" ".join(case): train(ranks, *case, steps=[0, 1, 2, 3, 4]) for case in CASES}
        if ranks.first:
            out.write_text(json.dumps(found))


def without(policy: str, optimizer: str) -> dict[str, Any]:
    """The same on one process, without the updates that must leave no trace."""
    return train(ALONE, "ddp", policy, optimizer, [0, 1] if policy == "stop" else [0, 1, 3, 4])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
