"""Batches gathered from flat rows."""

import numpy as np
import torch

from headstart.tasks.rows import DeviceRows, epoch_batches, make_rows

ROWS = make_rows([[5, 6, 7], [8], [9, 10]], {"tag": [[1, 2, 3], [4], [5, 6]]}, {"label": [0, 1, 2]}, {"tag": -100})


def test_a_batch_is_padded_to_its_longest_row() -> None:
    batch = DeviceRows(ROWS, pad_id=77, device=torch.device("cpu")).batch(np.array([1, 2]))
    assert batch["input_ids"].tolist() == [[8, 77], [9, 10]]
    assert batch["tag"].tolist() == [[4, -100], [5, 6]]
    assert batch["attention_mask"].tolist() == [[True, False], [True, True]]
    assert batch["label"].tolist() == [1, 2]
    assert batch["input_ids"].dtype == torch.int64


def test_full_rows_have_no_mask() -> None:
    batch = DeviceRows(ROWS, 0, torch.device("cpu")).batch(np.array([0]))
    assert "attention_mask" not in batch
    assert batch["input_ids"].tolist() == [[5, 6, 7]]


def test_the_last_row_may_be_padded_too() -> None:
    batch = DeviceRows(ROWS, 0, torch.device("cpu")).batch(np.array([2, 0]))
    assert batch["input_ids"].tolist() == [[9, 10, 0], [5, 6, 7]]


def test_an_epoch_holds_every_row_once_in_a_new_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1003)
    first, second = epoch_batches(lengths, 32, seed=1, epoch=0), epoch_batches(lengths, 32, seed=1, epoch=1)
    for batches in (first, second):
        assert sorted(np.concatenate(batches).tolist()) == list(range(1003))
        assert sorted(map(len, batches)) == [11, *[32] * 31]
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    again = epoch_batches(lengths, 32, seed=1, epoch=0)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = epoch_batches(lengths, 32, seed=2, epoch=0)
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_rows_of_similar_length_come_together() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1024)

    def padded(batches: list[np.ndarray]) -> float:
        return sum(len(batch) * lengths[batch].max() for batch in batches) / lengths.sum() - 1

    shuffled = np.split(np.random.default_rng(0).permutation(1024), 32)
    assert padded(epoch_batches(lengths, 32, 0, 0)) < 0.2 < 0.8 < padded(shuffled)
