"""How far training moved the matrices of a model: each of them (what SPDF looks at to see which tasks, layers and sparsities need dense weights), and
the bottom and the top layers together (what the stability gap's paper looks at)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from headstart.core.errors import BadInput
from headstart.interop.transformers_io import load_decoder
from headstart.interventions.stability_gap.movement import Change, change, ends


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
    one, other = _pair(before, after)
    return [movement(name, w.detach(), other[name].detach()) for name, w in one.items() if w.ndim == 2]


def movement(name: str, w0: torch.Tensor, w: torch.Tensor) -> Movement:
    a, b = w0.double().flatten(), w.double().flatten()
    zero, moved = a == 0, change([(w0, w)])
    return Movement(
        name,
        cosine=float(torch.nn.functional.cosine_similarity(a, b, dim=0)),
        norm=moved.norm,
        relative=moved.relative,
        revived=float((b[zero] != 0).double().mean()) if bool(zero.any()) else 0.0,
        zeros=moved.zeros,
    )


@dataclass(frozen=True)
class EndsMovement:
    """Of the bottom and the top layers of a decoder."""

    bottom: Change
    top: Change

    @property
    def ratio(self) -> float:
        """Bottom to top; the paper: above 1.35 where training goes on plainly, nearer to 1 with its strategies."""
        return self.bottom.relative / self.top.relative if self.top.relative else float("nan")


def ends_movement(before: str | Path, after: str | Path, layers: int = 5) -> EndsMovement:
    """Of all parameters of the `layers` bottom and top layers of two decoders of one architecture.

    Raises:
        BadInput: as `weight_movement`.
    """
    one, other = _pair(before, after)
    low, high = ends(one, layers, layers)
    return EndsMovement(*(change((one[name].detach(), other[name].detach()) for name in names) for names in (low, high)))


def _pair(before: str | Path, after: str | Path) -> tuple[dict[str, torch.nn.Parameter], dict[str, torch.nn.Parameter]]:
    one, other = (dict(load_decoder(folder)[0].named_parameters()) for folder in (before, after))
    if [(name, w.shape) for name, w in one.items()] != [(name, w.shape) for name, w in other.items()]:
        raise BadInput(f"is another network than {before}.", "Compare a model with what it was fine-tuned from.", file=after)
    return one, other
