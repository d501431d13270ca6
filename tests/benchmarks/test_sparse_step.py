"""torch's own pruning and ours are one training: what `benchmarks.sparse_step` compares by the clock."""

from __future__ import annotations

import torch

from benchmarks.sparse_step import Side, masks_bytes, unlike


def test_masks_of_ours_and_of_torch_train_the_same_network() -> None:
    """Four updates with momentum, decay and clipping: equal weights, zeros included; ours keeps one byte a weight, torch's eight."""
    sizes = {"seq": 16, "batch": 4, "level": 0.75, "vocabulary": 120, "device": torch.device("cpu")}
    dense, ours, pruned = (Side(name, "tiny", **sizes) for name in ("dense", "ours", "pruned"))  # type: ignore[arg-type]
    for side in (dense, ours, pruned):
        for _ in range(4):
            side.advance()
    for name, weight in pruned.weights().items():
        assert torch.equal(weight, ours.weights()[name]), name
    assert unlike(ours, pruned) == 0.0 < unlike(ours, dense)
    masked = sum(matrix.shape[0] * matrix.shape[1] for matrix in ours.method.matrices)
    assert masks_bytes(ours) == masked
    assert masks_bytes(pruned) == 8 * masked
    assert masks_bytes(dense) == 0
