"""Where a patch sits: fixed sine and cosine tables, their interpolation to other grids, and rotary positions on two axes.

- A grid is (rows, columns); patches are counted row by row. Tables may have one row more, for a class token, in front.
- `sincos_2d` has the values of facebookresearch/mae util/pos_embed.py: the column fills the first half of the width, the row the second.
- `rope_2d` is the rotation of CroCo v2 (naver/croco models/pos_embed.py): the row turns the first half of a head, the column the second.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.core.errors import UsageError

Grid = tuple[int, int]
"""(rows, columns) of patches."""


def sincos_1d(positions: Tensor, dim: int) -> Tensor:
    """float64 [n, dim]: sin(p w_j) for all j, then cos(p w_j), with w_j = 10000^(-j / (dim / 2)).

    Args:
        positions: [n], whole or fractional.

    Raises:
        UsageError: `dim` is odd.
    """
    if dim % 2:
        raise UsageError(f"Positions of {dim} numbers cannot be halves of sines and cosines.", "Choose an even width.")
    frequencies = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angles = positions.to(torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(grid: Grid, dim: int, class_row: bool = False) -> Tensor:
    """float32 [1, tokens, dim] of a grid, with a row of zeros in front for a class token.

    Raises:
        UsageError: `dim` is no multiple of 4.
    """
    if dim % 4:
        raise UsageError(f"Positions on two axes need a width that is a multiple of 4, not {dim}.", "Choose another width.")
    rows, columns = grid
    y = torch.arange(rows).repeat_interleave(columns)
    x = torch.arange(columns).repeat(rows)
    table = torch.cat([sincos_1d(x, dim // 2), sincos_1d(y, dim // 2)], dim=1).float()
    return (F.pad(table, (0, 0, 1, 0)) if class_row else table)[None]


def interpolate_positions(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """[1, class rows + new tokens, dim]: a table of positions for another grid, bicubic; what stands before the patches (class rows) is kept.

    Args:
        table: [1, class rows + old tokens, dim].

    Raises:
        ValueError: the table has fewer rows than the old grid has patches.
    """
    if old == new:
        return table
    n_old = old[0] * old[1]
    in_front = table.shape[1] - n_old
    if in_front < 0:
        raise ValueError(f"a table of {table.shape[1]} positions does not hold a grid of {old[0]} x {old[1]}")
    patches = table[:, in_front:].reshape(1, *old, -1).permute(0, 3, 1, 2)  # [1, dim, rows, columns]
    resized = F.interpolate(patches.float(), size=new, mode="bicubic", align_corners=False).to(table.dtype)
    return torch.cat([table[:, :in_front], resized.flatten(2).transpose(1, 2)], dim=1)


def grid_coordinates(grid: Grid, device: torch.device | None = None) -> Tensor:
    """int64 [tokens, 2]: (row, column) of each patch."""
    rows, columns = grid
    index = torch.arange(rows * columns, device=device)
    return torch.stack([index // columns, index % columns], dim=1)


class Rotation(NamedTuple):
    """Cosines and sines that turn queries and keys: [tokens, head dim] or [batch, 1, tokens, head dim]."""

    cos: Tensor
    sin: Tensor

    def take(self, indices: Tensor) -> Rotation:
        """Of the tokens int64 [batch, kept] alone: [batch, 1, kept, head dim]."""
        return Rotation(self.cos[indices][:, None], self.sin[indices][:, None])


def rope_2d(coordinates: Tensor, head_dim: int, base: float = 100.0) -> Rotation:
    """The rotation of tokens at (row, column); position (0, 0) turns nothing.

    Inside each half of size m: frequencies base^(-2j/m), j < m/2, written twice.

    Args:
        coordinates: [tokens, 2], whole or fractional.

    Raises:
        UsageError: `head_dim` is no multiple of 4.
    """
    if head_dim % 4:
        raise UsageError(f"Rotary positions on two axes need heads of a multiple of 4, not {head_dim}.", "Choose another width or number of heads.")
    half = head_dim // 2
    frequencies = base ** (-torch.arange(0, half, 2, device=coordinates.device, dtype=torch.float32) / half)
    angles = (coordinates.float()[..., None] * frequencies).repeat(1, 1, 2).flatten(1)  # [tokens, head dim]: the row's half, then the column's
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """[batch, heads, tokens, head dim]: each half turned by its axis: x cos + (-b, a) sin for its two quarters (a, b)."""
    a, b, c, d = x.chunk(4, dim=-1)
    return (x * rotation.cos + torch.cat([-b, a, -d, c], dim=-1) * rotation.sin).to(x.dtype)
