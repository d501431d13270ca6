"""How many rows a step takes of a device's memory."""

from __future__ import annotations

import pytest
import torch

from headstart.engine.memory import ROOMY, largest_that_fits


@pytest.mark.parametrize(
    ("a_row", "rows"),
    [(ROOMY / 8, 8), (ROOMY / 8 + 0.01, 4), (0.24, 2), (0.9, 1), (1.1, None)],
    ids=["whole", "too little beside it", "half does not fit", "one row may take all", "not even one"],
)
def test_a_step_leaves_room_for_what_comes_beside_it(a_row: float, rows: int | None) -> None:
    """An evaluation in the middle of a run, while a captured graph keeps what its step held."""

    def attempt(count: int) -> float:
        if a_row * count > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return a_row * count

    assert largest_that_fits([8, 4, 2, 1], attempt) == rows
