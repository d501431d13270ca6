"""How far weights moved, as one number of many tensors."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

LAYER = re.compile(r"^(.*?(?:^|\.)(?:layers?|h|blocks?))\.(\d+)\.")
"""(stack, number of the layer) in the name of a parameter: `model.layers.3.mlp.down_proj.weight`, `transformer.h.3. ...`."""


@dataclass(frozen=True)
class Change:
    """From w0 to w, over all entries of a group."""

    relative: float
    """Mean of |w - w0| / |w0| over the entries that were not zero."""
    norm: float
    """||w - w0|| / ||w0||: no zero troubles it."""
    zeros: int
    """Entries that were zero, which `relative` leaves out."""


@torch.no_grad()
def change(pairs: Iterable[tuple[Tensor, Tensor]]) -> Change:
    """Of tensors before and after, taken together. In float64, so that the order of the tensors does not show."""
    relative = moved = size = 0.0
    entries = zeros = 0
    for before, after in pairs:
        w0, w = before.double().flatten(), after.double().flatten()
        difference, kept = w - w0, w0 != 0
        relative += float((difference[kept] / w0[kept]).abs().sum())
        moved += float(difference.square().sum())
        size += float(w0.square().sum())
        entries += int(kept.sum())
        zeros += w0.numel() - int(kept.sum())
    return Change(relative / max(entries, 1), (moved / size) ** 0.5 if size else float("nan"), zeros)


def stacks(names: Iterable[str]) -> dict[str, dict[int, list[str]]]:
    """Stack of layers -> number of the layer -> names of its parameters. A network may have several: encoder and decoder, two networks."""
    found: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        if match := LAYER.match(name):
            found[match[1]][int(match[2])].append(name)
    return found


def ends(names: Iterable[str], bottom: int, top: int) -> tuple[list[str], list[str]]:
    """Names of the parameters of the `bottom` lowest and of the `top` highest layers of each stack."""
    low: list[str] = []
    high: list[str] = []
    for layers in stacks(names).values():
        numbers = sorted(layers)
        low += [name for number in numbers[:bottom] for name in layers[number]]
        high += [name for number in numbers[len(numbers) - min(top, len(numbers)) :] for name in layers[number]]
    return low, high
