"""The hypergrid (Bengio et al. 2021): from the origin, one step in one coordinate at a time, until stopping.

`edge_ends` is GAFN's form (ling-pan/GAFN, grid/toy_grid_dag.py): entering a cell with a coordinate side - 1 ends too, so that a cell with two such
coordinates is never reached and a boundary cell has one parent. Without it (torchgfn's form) every cell is an object, and only stopping ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from headstart.core.errors import BadInput, UsageError
from headstart.data.environments.environment import ENUMERABLE, Environment


class Grid(Environment):
    """States are the coordinates; action d adds 1 to coordinate d, the last action stops."""

    name = "hypergrid"
    tree = False

    def __init__(self, side: int = 8, dimensions: int = 2, edge_ends: bool = True) -> None:
        if side < 3 or dimensions < 1 or side**dimensions > ENUMERABLE:
            what = f"A grid of {dimensions} dimensions and {side} cells a side."
            raise UsageError(what, f"Give 3 cells or more a side, 1 dimension or more, and at most {ENUMERABLE:,} cells.")
        self.side, self.dimensions, self.edge_ends = side, dimensions, edge_ends
        self.sizes = (side,) * dimensions
        self.n_actions = dimensions + 1
        self.max_steps = dimensions * (side - 2) + 1 if edge_ends else dimensions * (side - 1) + 1
        cells = torch.cartesian_prod(*[torch.arange(side)] * dimensions).view(-1, dimensions)
        self._objects = cells[self._edges(cells) <= 1] if edge_ends else cells
        self.n_objects = len(self._objects)

    def _edges(self, states: Tensor) -> Tensor:
        """int64 [...]: how many coordinates are the last one."""
        return (states == self.side - 1).sum(-1)

    def valid(self, states: Tensor) -> Tensor:
        stop = torch.ones_like(states[..., :1], dtype=torch.bool)
        return torch.cat([states < self.side - 1, stop], -1)

    def step(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        moved = states + (torch.arange(self.dimensions, device=states.device) == actions[..., None])
        stopped = actions == self.dimensions
        return moved, stopped | (self._edges(moved) > 0) if self.edge_ends else stopped

    def can_reach(self, states: Tensor, done: Tensor, outcomes: Tensor) -> Tensor:
        equal = (states == outcomes).all(-1)
        onward = (states <= outcomes).all(-1)
        if self.edge_ends:
            onward = onward & (self._edges(states) == 0) & (self._edges(outcomes) <= 1)
        return torch.where(done, equal, onward)

    def parents(self, states: Tensor, done: Tensor) -> Tensor:
        by_stop, by_step = done, ~done
        entered = states > 0
        if self.edge_ends:
            on_edge = self._edges(states) > 0
            entered = torch.where(on_edge[..., None], states == self.side - 1, entered)
            by_stop, by_step = done & ~on_edge, ~done | on_edge
        return torch.cat([entered & by_step[..., None], by_stop[..., None]], -1)

    def undo(self, states: Tensor, done: Tensor, actions: Tensor) -> Tensor:
        return states - (torch.arange(self.dimensions, device=states.device) == actions[..., None]).long()

    def draw(self, numbers: Tensor) -> Tensor:
        return self._objects.to(numbers.device)[(numbers[..., 0] * len(self._objects)).long()]

    def objects(self) -> Tensor:
        return self._objects

    def to_text(self, objects: Tensor) -> list[str]:
        return [",".join(map(str, cell)) for cell in objects.tolist()]

    def from_text(self, texts: Sequence[str]) -> Tensor:
        cells = []
        for number, text in enumerate(texts, 1):
            parts = text.split(",")
            cell = [int(part) for part in parts if part.strip().isdigit()]
            if len(parts) != self.dimensions or len(cell) != self.dimensions or max(cell) >= self.side:
                mend = f"Write {self.dimensions} whole numbers below {self.side}, with commas between them."
                raise BadInput(f"'{text}' is no cell of the grid.", mend, record=number)
            if self.edge_ends and sum(part == self.side - 1 for part in cell) > 1:
                raise BadInput(f"The cell {text} cannot be reached where the edge ends the way.", "Leave it out.", record=number)
            cells.append(cell)
        return torch.tensor(cells, dtype=torch.int64).view(-1, self.dimensions)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"side": self.side, "dimensions": self.dimensions, "edge_ends": self.edge_ends}
