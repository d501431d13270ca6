"""Which weights are held at zero: the matrices, their sparsities, and the draw.

Facts are those of the paper and of Cerebras/modelzoo at release 1.8 (modelzoo/common/pytorch/optim/sparse/utils.py); no code of it is here. All of
this is numpy on the host, once a run: a mask must not depend on the device that trains.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import nn
from transformers.pytorch_utils import Conv1D

from headstart.core.errors import UsageError

Bools: TypeAlias = npt.NDArray[np.bool_]
Scores: TypeAlias = npt.NDArray[np.float64]

FUSED = ("c_attn", "qkv", "query_key_value", "Wqkv")
"""Names of layers that compute queries, keys and values with one matrix: each of the three is drawn for itself."""


@dataclass(frozen=True)
class Matrix:
    """A weight that can be made sparse. Masks are drawn in the layout of nn.Linear, [out, in], whatever its own is."""

    name: str
    """The parameter's dotted name in the method."""
    shape: tuple[int, int]
    """[out, in]."""
    transposed: bool = False
    """The parameter is [in, out] (GPT-2's Conv1D)."""

    @property
    def blocks(self) -> tuple[tuple[str, slice], ...]:
        """(name of the draw, its rows of [out, in]): one block, or three in a fused matrix."""
        rows, columns = self.shape
        if self.name.split(".")[-2:-1] in ([layer] for layer in FUSED) and rows == 3 * columns:
            return tuple((f"{self.name}#{part}", slice(i * columns, (i + 1) * columns)) for i, part in enumerate("qkv"))
        return ((self.name, slice(0, rows)),)

    def own(self, mask: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """[out, in] in the parameter's own layout, or back."""
        return mask.T if self.transposed else mask


def find_matrices(network: nn.Module, include: Sequence[str] = ()) -> list[Matrix]:
    """The weights that are made sparse: by default those of every dense layer inside the repeated layers; embeddings, positions, norms, biases and
    heads stay dense (paper, section 3).

    Args:
        include: patterns of parameter names instead; each must match dense layers only.

    Raises:
        UsageError: a pattern matches nothing, or something else than dense layers; or nothing is left.
    """
    dense: dict[str, Matrix] = {}
    names = [name for name, _ in network.named_parameters()]  # a shared one once, under its first name
    lists = [name for name, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    inside: set[str] = set()
    for name, module in network.named_modules():
        if not isinstance(module, nn.Linear | Conv1D) or f"{name}.weight" not in names:
            continue
        transposed = isinstance(module, Conv1D)
        out, into = module.weight.shape[::-1] if transposed else module.weight.shape
        dense[f"{name}.weight"] = Matrix(f"{name}.weight", (out, into), transposed)
        if any(name.startswith(f"{layers}.") and "." in name.removeprefix(f"{layers}.") for layers in lists):  # a member itself is a head
            inside.add(f"{name}.weight")
    if not include:
        if not inside:
            raise UsageError("The network has no matrix inside repeated layers.", "Name weights with --sparsity.include.")
        return [matrix for name, matrix in dense.items() if name in inside]
    chosen: dict[str, Matrix] = {}
    for pattern in include:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise UsageError(f"--sparsity.include {pattern} matches no weight.", f"Some of their names: {', '.join([*dense][:4])}.")
        if others := [name for name in matched if name not in dense]:
            shown = ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
            raise UsageError(
                f"--sparsity.include {pattern} matches weights that are no matrix of a dense layer: {shown}.",
                "Embeddings, positions, norms and biases stay dense; take a narrower pattern.",
            )
        chosen |= {name: dense[name] for name in matched}
    return [matrix for name, matrix in dense.items() if name in chosen]


def kept_count(numel: int, level: float) -> int:
    """How many of `numel` entries are kept: round(numel (1 - level)), with the level as the decimal fraction that was written. In float64
    int((1 - 0.9) 100) is 9."""
    return round(numel * (1 - Fraction(str(level))))


def draw(seed: int, name: str, shape: tuple[int, int]) -> Scores:
    """float64 [out, in], i.i.d. uniform: a function of the seed and the name, not of an order of creation, a device or a number of processes."""
    generator = np.random.default_rng([seed % 2**64, zlib.crc32(name.encode())])
    return generator.random(math.prod(shape)).reshape(shape)


def keep_largest(scores: Scores, count: int) -> Bools:
    """True at the `count` largest entries; of equal ones those that come first in C order."""
    flat = scores.reshape(-1)
    kept = np.zeros(flat.shape, dtype=bool)
    if count > 0:
        least = np.partition(flat, flat.size - count)[flat.size - count]
        kept[flat > least] = True
        ties = np.flatnonzero(flat == least)
        kept[ties[: count - int(kept.sum())]] = True
    return kept.reshape(scores.shape)


def keep_n_of_m(scores: Scores, n: int, m: int) -> Bools:
    """True at the n largest of every m neighbours along the inputs, [out, in]; `in` is a multiple of m."""
    groups = scores.reshape(-1, m)
    order = np.argsort(-groups, axis=1, kind="stable")[:, :n]
    kept = np.zeros(groups.shape, dtype=bool)
    np.put_along_axis(kept, order, True, axis=1)
    return kept.reshape(scores.shape)


def erk_sparsities(shapes: Iterable[tuple[int, int]], level: float) -> list[float]:
    """The sparsity of each matrix under the Erdos-Renyi kernel: density eps (n_in + n_out) / (n_in n_out), with one eps, such that the share of zeros
    in all is `level`. What would exceed 1 is dense, and the rest is solved again (Evci et al. 2020; modelzoo erdos_renyi_distribution)."""
    sizes = [(out * into, out + into) for out, into in shapes]
    wanted = (1 - level) * sum(numel for numel, _ in sizes)
    dense: set[int] = set()
    while True:
        eps = (wanted - sum(sizes[i][0] for i in dense)) / sum(ends for i, (_, ends) in enumerate(sizes) if i not in dense)
        densities = [1.0 if i in dense else eps * ends / numel for i, (numel, ends) in enumerate(sizes)]
        over = {i for i, density in enumerate(densities) if density > 1}
        if not over:
            return [1 - density for density in densities]
        dense |= over


def kept_counts(matrices: Sequence[Matrix], level: float, distribution: str) -> list[list[int]]:
    """How many weights of each block of each matrix are kept.

    Raises:
        UsageError: none of one.
    """
    shapes = [(rows.stop - rows.start, matrix.shape[1]) for matrix in matrices for _, rows in matrix.blocks]
    numels = [out * into for out, into in shapes]
    if distribution == "erk" and level > 0:
        flat = [round(numel * (1 - sparsity)) for numel, sparsity in zip(numels, erk_sparsities(shapes, level), strict=True)]
    else:
        flat = [kept_count(numel, level) for numel in numels]
    counts = iter(flat)
    found = [[next(counts) for _ in matrix.blocks] for matrix in matrices]
    for matrix, of_blocks in zip(matrices, found, strict=True):
        if min(of_blocks) == 0:
            raise UsageError(
                f"A sparsity of {level:g} keeps no weight of {matrix.name} ({matrix.shape[0]} x {matrix.shape[1]}).", "Give a lower --sparsity.level."
            )
    return found
