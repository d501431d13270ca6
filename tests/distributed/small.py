"""Twenty updates of small methods, in one process or in those that torchrun started: `torchrun ... -m tests.distributed.small OUT.json`.

What is trained: a loss whose rows count differently, one that compares every row with every other, one with unused parameters; with AdamW and Muon,
clipping, a weight average and micro-batches; as DDP and as FSDP2.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import profile

from headstart.engine.distributed import ALONE, Ranks, joined, local
from headstart.engine.ema import Ema
from headstart.engine.method import Batch, Context, Method
from headstart.engine.optim import OptimizerConfig, build_optimizer
from headstart.engine.parallel import Parallel, checkpoint_activations
from headstart.engine.trial import micro_starts
from headstart.engine.update import Update
from headstart.interventions.sam.config import SamConfig
from headstart.interventions.sam.intervention import SharpnessAware

STEPS = 20
ROWS = 8
REDUCTIONS = ("c10d::allreduce_", "c10d::_reduce_scatter_base_")
WIDTH = 5  # not a multiple of the number of processes: parts are uneven


class Small(Method):
    """Two layers between a table and its transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(11, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.head = nn.Linear(WIDTH, 11, bias=False)
        self.head.weight = self.embed_tokens.weight  # tied
        self.spare = nn.Linear(WIDTH, 3)  # never used
        self.seen = nn.Buffer(torch.zeros(()))

    def backbone(self) -> nn.Module:
        return self.layers

    def hidden(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        kept = ctx.rng.uniform("kept", batch["ids"].shape[1]) < 0.4  # rows, and so processes, keep different numbers of targets
        nll = nn.functional.cross_entropy(self.head(self.hidden(batch["ids"])).transpose(1, 2), batch["ids"].roll(1, 1), reduction="none")
        loss = (nll * kept).sum() / kept.sum().clamp(min=1)
        low = batch["ids"] < 3
        both = (kept & low).sum() / low.sum().clamp(min=1)  # a share of other items than those of the loss
        return {"loss": loss, "kept_of_low": both, "weight": kept.sum().float(), "weight/kept_of_low": low.sum()}

    def observe(self, scalars: Any) -> None:
        self.seen.lerp_(scalars["loss"], 0.5)


class TwoMeans(Small):
    """A loss that sums two means over different items."""

    def items(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        kept = ctx.rng.uniform("kept", batch["ids"].shape[1]) < 0.4
        return {"kept": kept.sum(), "first": (batch["ids"][:, 0] < 4).sum()}

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        one = super().loss(batch, ctx)["loss"] * ctx.share("kept")
        chosen = (batch["ids"][:, 0] < 4).float()
        size = self.hidden(batch["ids"])[:, 0].square().sum(1)
        two = (size * chosen).sum() / chosen.sum().clamp(min=1) * ctx.share("first")
        return {"loss": one + two, "two": two.detach()}


class Contrastive(Small):
    """Each row against every row of the global batch."""

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        vectors = nn.functional.normalize(self.hidden(batch["ids"]).mean(1), dim=-1)
        others = nn.functional.normalize(self.head(self.hidden(batch["ids"])).mean(1)[:, :WIDTH], dim=-1)
        scores = vectors @ ctx.gather(others).T / 0.2  # [rows of this process, rows of all]
        return {"loss": nn.functional.cross_entropy(scores, ctx.rng.rows)}


def sharpness_aware(adaptive: bool) -> Any:
    """With a second pass at other weights, which every process must reach by the same step."""
    return SharpnessAware(Small(), SamConfig(rho=0.5, adaptive=adaptive), seed=0)


CASES: dict[str, dict[str, Any]] = {
    "adamw": {"kind": Small},
    "micro-batches": {"kind": Small, "micro_batch": 2},
    "muon": {"kind": Small, "optimizer": {"name": "muon"}},
    "lamb": {"kind": Small, "optimizer": {"name": "lamb", "epsilon": 1e-6}},
    "adam-uncorrected": {"kind": Small, "optimizer": {"name": "adam-uncorrected", "epsilon": 1e-6}},
    "two means": {"kind": TwoMeans, "micro_batch": 2},
    "contrastive": {"kind": Contrastive},
    "activation checkpointing": {"kind": Small, "checkpointing": True},
    "bf16": {"kind": Small, "precision": "bf16"},
    "sam": {"kind": partial(sharpness_aware, False), "micro_batch": 2},
    "adaptive sam": {"kind": partial(sharpness_aware, True)},
}


def batch_of(step: int, start: int, stop: int) -> Batch:
    return {"ids": torch.randint(11, (ROWS, 6), generator=torch.Generator().manual_seed(step))[start:stop]}


def train(
    kind: Callable[[], Small],
    ranks: Ranks = ALONE,
    mode: Any = "ddp",
    optimizer: dict[str, Any] | None = None,
    micro_batch: int | None = None,
    checkpointing: bool = False,
    precision: Any = "fp32",
) -> dict[str, Any]:
    """Losses and gradient norms of each step, and every weight, average and buffer at the end."""
    torch.manual_seed(0)
    method = kind()
    if checkpointing:
        checkpoint_activations(method)
    parallel = Parallel(method, ranks, mode, torch.device("cpu"), precision)
    parallel.enter(unused_parameters=True)
    config = OptimizerConfig(**{"learning_rate": 0.05, **(optimizer or {})})
    optim = build_optimizer(method, config)
    ema = Ema(method, 0.9)
    update = Update(
        method, optim, clip_norm=0.5, precision=precision, device=torch.device("cpu"), seed=1, total_steps=STEPS, parallel=parallel
    )
    micro_batch = micro_batch or ROWS // ranks.world
    losses, norms, shares = [], [], []
    for step in range(STEPS):
        starts = micro_starts(ROWS, micro_batch, ranks)
        batches = [batch_of(step, start, start + micro_batch) for start in starts]
        scalars = update(batches, [torch.arange(start, start + micro_batch) for start in starts], step, "train")
        ema.update()
        losses.append(float(scalars["loss"]))
        norms.append(float(scalars["gradient_norm"]))
        shares.append(float(scalars.get("kept_of_low", 0)))
    with profile() as seen:
        update(batches, [torch.arange(start, start + micro_batch) for start in starts], STEPS, "train")
    talks = sum(event.count for event in seen.key_averages() if event.key in REDUCTIONS)
    with ema.swapped(), parallel.whole():
        averages = {name: value.detach().tolist() for name, value in method.named_parameters()} if ranks.first else {}
    with parallel.whole():
        weights = {name: value.detach().tolist() for name, value in method.named_parameters()} if ranks.first else {}
    parts = sum(local(parameter).numel() for parameter in method.parameters())
    return {
        "losses": losses,
        "norms": norms,
        "shares": shares,
        "weights": weights,
        "averages": averages,
        "seen": float(method.seen),
        "parts": ranks.gather(parts),
        "talks": talks,
    }


def main(out: Path) -> None:
    with joined("cpu") as ranks:
        found = {f"{name}/{mode}": train(ranks=ranks, mode=mode, **case) for name, case in CASES.items() for mode in ("ddp", "fsdp")}
        if ranks.first:
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
