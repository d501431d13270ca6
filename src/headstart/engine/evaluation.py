"""Held-out metrics."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from headstart.core.rng import Rng
from headstart.engine.method import Batch, Context, Method
from headstart.engine.update import OWN_WEIGHT, autocast


def evaluate(
    method: Method, batches: list[Batch], phase: str, precision: Literal["fp32", "bf16"], device: torch.device, seed: int, total_steps: int
) -> dict[str, float]:
    """Mean held-out metrics ("held_out/NAME"), with dropout off and draws that do not depend on the step. As in training, each is a mean over what
    the method says that it counts ("weight", "weight/NAME"), over rows where it says nothing: however the rows are cut into batches. What
    counts nothing by a weight of its own is left out."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor | float] = {}
    rows = 0
    was_training = method.training
    method.eval()
    with torch.no_grad(), autocast(device, precision):
        for batch in batches:
            n = len(next(iter(batch.values())))
            context = Context(0, total_steps, phase, Rng.at(seed, 0, torch.arange(rows, rows + n, device=device)), device)
            scalars = method.evaluate({name: value.to(device) for name, value in batch.items()}, context)
            for name, value in scalars.items():
                if not name.startswith("weight"):
                    count = scalars.get(OWN_WEIGHT + name, scalars.get("weight", n))
                    sums[name] = sums.get(name, torch.zeros((), device=device)) + value.float() * count
                    counts[name] = counts.get(name, 0) + count
            rows += n
    method.train(was_training)
    there = {name for name in sums if OWN_WEIGHT + name not in scalars or float(counts[name]) > 0} if batches else set()
    return {f"held_out/{name}": float(value) / max(1.0, float(counts[name])) for name, value in sums.items() if name in there}
