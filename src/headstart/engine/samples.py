"""What a person is shown of held-out rows while a run goes on: masks and guesses, completions, pictures."""

from __future__ import annotations

import torch

from headstart.core.rng import Rng
from headstart.engine.method import Batch, Context, Method
from headstart.engine.pictures import Drawing
from headstart.engine.update import Precision, autocast

ROWS = 2
"""Held-out rows that are shown as lines."""
PICTURED = 6
"""Held-out rows that are drawn."""


def shown(
    method: Method, held_out: list[Batch], phase: str, precision: Precision, device: torch.device, seed: int, total_steps: int
) -> tuple[list[str], list[str], list[Drawing]]:
    """(lines, those of the first row, drawings) of the first held-out rows, with dropout off and the same draws every time."""

    def looked_at(count: int) -> tuple[Batch, Context]:
        batch = {name: value[:count].to(device) for name, value in held_out[0].items()}
        rows = torch.arange(len(next(iter(batch.values()))), device=device)
        return batch, Context(0, total_steps, phase, Rng.at(seed, 0, rows), device)

    method.eval()
    with torch.no_grad(), autocast(device, precision):
        lines, drawings = method.show(*looked_at(ROWS)), method.drawings(*looked_at(PICTURED))
    method.train()
    rows = min(ROWS, len(next(iter(held_out[0].values()))))
    return lines, lines[: max(1, len(lines) // rows)], drawings
