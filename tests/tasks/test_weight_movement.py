"""How far a weight moved."""

from __future__ import annotations

import pytest
import torch

from headstart.tasks.weight_movement import movement


def test_by_hand() -> None:
    """The specification of stability_gap, check 2: entries that were zero are left out of the relative form, not of the norms."""
    found = movement("w", torch.tensor([0.5, -0.2, 0, 1]), torch.tensor([0.55, -0.1, 0.01, 0.8]))
    assert found.relative == pytest.approx(0.266667, abs=1e-6)
    assert found.norm == pytest.approx(0.201929, abs=1e-6)
    assert (found.zeros, found.revived) == (1, 1.0)
    same = movement("w", torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
    assert (same.cosine, same.revived) == (1.0, 0.0)
