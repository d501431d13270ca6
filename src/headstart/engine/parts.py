"""Held-out losses of named parts of the data, each apart: what a continued run learns of the new text, and what it forgets of the old.

They move fast at first (the rate rises, the loss with it), so they are measured at steps 0, 1, 2, 4, 8 ... and then regularly; step 0, before the
first update, is the point that all others are compared with. Most points are of a fixed sample; the first and the last are of the whole split, with
that of the sample beside, because a curve is read on one set of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.core.rng import Rng
from headstart.core.run import PART_BITS, PART_LOSS, PART_SAMPLE
from headstart.engine.method import Context, Method
from headstart.engine.update import OWN_WEIGHT, Precision, autocast


@dataclass(frozen=True)
class HeldOutPart:
    """A part's held-out text.

    Args:
        rows: `Rows` or anything with `__len__` and `batch`.
        targets_per_byte: predicted tokens over UTF-8 bytes of the whole split; None where the loss says nothing of bytes.
    """

    name: str
    rows: Any
    targets_per_byte: float | None = None


def measuring_steps(total_steps: int, every: int, also: Sequence[int] = ()) -> frozenset[int]:
    """After which updates the parts are measured: 0, the powers of two, each `every`-th, the last, and those asked for."""
    doubling = {1 << power for power in range(total_steps.bit_length())}
    return frozenset(step for step in {0, total_steps, *doubling, *range(every, total_steps, every), *also} if step <= total_steps)


def mean_losses(
    method: Method, rows: Any, counts: Sequence[int], batch: int, phase: str, precision: Precision, device: torch.device, seed: int, total_steps: int
) -> list[float]:
    """For each of the ascending `counts` the mean of `method.part_metric` over what `evaluate` counts (tokens: "weight") in so many first rows; over
    rows where it counts nothing. One pass.

    Dropout is off and every draw is fixed by the seed, so neither the weights nor what is drawn in training is touched.

    Args:
        batch: rows of a forward pass; the means do not depend on it.
    """
    was_training = method.training
    found: list[Tensor] = []
    total = torch.zeros(2, dtype=torch.float64, device=device)  # of the losses, of what they count
    method.eval()
    with torch.no_grad(), autocast(device, precision):
        for first, last in pairwise([0, *counts]):
            for start in range(first, last, batch):
                numbers = np.arange(start, min(start + batch, last))
                values = {name: torch.as_tensor(value).to(device) for name, value in rows.batch(numbers).items()}
                scalars = method.evaluate(values, Context(0, total_steps, phase, Rng.at(seed, 0, torch.as_tensor(numbers, device=device)), device))
                own = scalars.get(OWN_WEIGHT + method.part_metric)
                weight = own if own is not None else scalars.get("weight", torch.tensor(float(len(numbers)), device=device)).double()
                total = total + torch.stack([scalars[method.part_metric].double() * weight, weight])
            found.append(total[0] / total[1])
    method.train(was_training)
    return [float(mean) for mean in found]


@dataclass(frozen=True)
class Meter:
    """Measures the parts of a run; arguments as of `mean_losses`.

    Args:
        steps: after which they are measured.
        whole: those of them at which the whole split is scored.
        sample: rows of a part that are scored at every one.
    """

    parts: Sequence[HeldOutPart]
    steps: frozenset[int]
    whole: frozenset[int]
    sample: int
    batch: int
    precision: Precision
    device: torch.device
    seed: int
    total_steps: int

    def measure(self, method: Method, step: int, phase: str) -> dict[str, float]:
        """Probe -> value: of each part its loss and bits a byte; where those are of the whole split, the loss of the sample beside."""
        found: dict[str, float] = {}
        for part in self.parts:
            counts = [min(len(part.rows), self.sample)] + [len(part.rows)] * (step in self.whole)
            *sample, loss = mean_losses(method, part.rows, counts, self.batch, phase, self.precision, self.device, self.seed, self.total_steps)
            found[PART_LOSS + part.name] = loss
            if sample:
                found[PART_SAMPLE + part.name] = sample[0]
            if part.targets_per_byte is not None:
                found[PART_BITS + part.name] = bits_per_byte(loss, part.targets_per_byte)
        return found


def losses_line(step: int, found: Mapping[str, float]) -> str:
    """What a person is shown of a measurement."""
    losses = (f"{name.removeprefix(PART_LOSS)} {value:.4f}" for name, value in found.items() if name.startswith(PART_LOSS))
    return f"  held-out loss at step {step}: {'  '.join(losses)}"


def bits_per_byte(loss: float, targets_per_byte: float) -> float:
    """The loss in nats a token as bits a byte of text: comparable between tokenizers and kinds of text."""
    return loss / math.log(2) * targets_per_byte
