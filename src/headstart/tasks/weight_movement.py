"""How far fine-tuning moved each matrix of a model: what SPDF looks at to see which tasks, layers and sparsities need dense weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from headstart.core.errors import BadInput
from headstart.interop.transformers_io import load_decoder


@dataclass(frozen=True)
class Movement:
    """Of one weight from w0 to w."""

    name: str
    cosine: float
    """Of the two as vectors; 1: only its size changed."""
    norm: float
    """||w - w0|| / ||w0||."""
    relative: float
    """Mean of |w - w0| / |w0| over the entries that were not zero."""
    revived: float
    """Share of the entries that were zero and no longer are, among those that were zero; 0 where none was."""
    zeros: int
    """Entries that were zero, which `relative` leaves out."""


def weight_movement(before: str | Path, after: str | Path) -> list[Movement]:
    """Of every matrix of two decoders of one architecture, in the order of the model.

    Raises:
        BadInput: a folder holds no decoder, or the two are of different shapes.
    """
    one, other = (dict(load_decoder(folder)[0].named_parameters()) for folder in (before, after))
    if [(name, w.shape) for name, w in one.items()] != [(name, w.shape) for name, w in other.items()]:
        raise BadInput(f"is another network than {before}.", "Compare a model with what it was fine-tuned from.", file=after)
    return [movement(name, w.detach(), other[name].detach()) for name, w in one.items() if w.ndim == 2]


def movement(name: str, w0: torch.Tensor, w: torch.Tensor) -> Movement:
    a, b = w0.double().flatten(), w.double().flatten()
    zero = a == 0
    kept = ~zero
    return Movement(
        name,
        cosine=float(torch.nn.functional.cosine_similarity(a, b, dim=0)),
        norm=float((b - a).norm() / a.norm()),
        relative=float(((b - a).abs()[kept] / a.abs()[kept]).mean()),
        revived=float((b[zero] != 0).double().mean()) if bool(zero.any()) else 0.0,
        zeros=int(zero.sum()),
    )
