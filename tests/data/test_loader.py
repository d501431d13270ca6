import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import UsageError
from headstart.data.loader import Loader, Prefetcher
from headstart.data.mixture import Mixture
from tests.data.test_mixture import Numbers


class Padded(Numbers):
    """Rows with an attention mask and segments."""

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        ones = np.ones((len(rows), 1), np.int64)
        return {"input_ids": (rows + self.base)[:, None], "attention_mask": np.zeros((len(rows), 1), bool), "token_type_ids": ones}


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 300),
    layouts=st.lists(st.sampled_from([(1, 24), (2, 12), (3, 2), (4, 6), (24, 1), (8, 1)]), min_size=1, max_size=5),
    steps=st.lists(st.integers(1, 8), min_size=5, max_size=5),
)
def test_order_depends_on_seed_and_step_only(seed: int, rows: int, layouts: list[tuple[int, int]], steps: list[int]) -> None:
    """A run that is stopped and continued with other world sizes and micro-batches reads the same samples in the same order, each once an epoch."""
    global_batch = 24
    reference = Loader(Mixture([Numbers(rows)], seed=seed), global_batch)
    total = sum(steps[: len(layouts)])
    expected = torch.cat([reference.batch(step)["input_ids"] for step in range(total)]).flatten()

    seen, step = [], 0
    for (world, micro_batch), count in zip(layouts, steps, strict=False):  # each entry is one process group, started afresh
        loader = Loader(Mixture([Numbers(rows)], seed=seed), global_batch)
        share = global_batch // world
        for _ in range(count):
            for rank in range(world):
                for start in range(rank * share, (rank + 1) * share, micro_batch):
                    seen.append(loader.batch(step, start, min(start + micro_batch, (rank + 1) * share))["input_ids"])
            step += 1
    assert torch.equal(torch.cat(seen).flatten(), expected)
    for epoch in range(len(expected) // rows):
        assert sorted(expected[epoch * rows : (epoch + 1) * rows].tolist()) == list(range(rows))


def test_keys_that_a_part_lacks_mean_full_rows_of_one_segment() -> None:
    loader = Loader(Mixture([Numbers(100), Padded(100, base=1000)], [1, 1], by="rows"), 10)
    batch = loader.batch(0)
    padded = batch["input_ids"][:, 0] >= 1000
    assert padded.sum() == 5
    assert batch["attention_mask"].dtype == torch.bool
    assert torch.equal(batch["attention_mask"][:, 0], ~padded)
    assert torch.equal(batch["token_type_ids"][:, 0], padded.long())


def test_full_rows_give_input_ids_only() -> None:
    loader = Loader(Mixture([Numbers(10)]), 4)
    assert list(loader.batch(0)) == ["input_ids"]
    assert loader.tokens_per_row == 1
    assert loader.epoch(5) == 2.0


def test_rows_past_the_global_batch_do_not_exist() -> None:
    loader = Loader(Mixture([Numbers(10)]), 4)
    assert len(loader.batch(0, 2, 99)["input_ids"]) == 2
    with pytest.raises(ValueError, match=r"rows 4\.\.4"):
        loader.batch(0, 4)
    with pytest.raises(UsageError):
        Loader(Mixture([Numbers(10)]), 0)


def test_prefetcher_gives_the_steps_in_order_and_then_ends() -> None:
    with Prefetcher(lambda step: step * 10, 3, 7) as batches:
        assert list(batches) == [30, 40, 50, 60]
        with pytest.raises(StopIteration):
            next(batches)


def test_prefetcher_loads_ahead_but_not_without_bound() -> None:
    loaded: list[int] = []
    with Prefetcher(loaded.append, 0, 1000, ahead=3) as batches:
        next(batches)
        while len(loaded) < 4:  # one given, three ready
            time.sleep(0.001)
        time.sleep(0.2)
        assert len(loaded) <= 5, "and one that waits for a place"


def test_prefetcher_measures_the_time_it_waited() -> None:
    """The time within `next`, not what passes between."""
    within = 0.0
    with Prefetcher(lambda step: time.sleep(0.01), 0, 4) as batches:
        for _ in range(4):
            began = time.perf_counter()
            next(batches)
            within += time.perf_counter() - began
            assert 0 < batches.waited <= within
            time.sleep(0.02)


def test_an_error_in_the_thread_reaches_the_consumer_again_and_again() -> None:
    def load(step: int) -> int:
        if step == 2:
            raise OSError("disk gone")
        return step

    with Prefetcher(load, 0, 5) as batches:
        assert [next(batches), next(batches)] == [0, 1]
        for _ in range(2):
            with pytest.raises(OSError, match="disk gone"):
                next(batches)


def test_closing_ends_the_thread_even_while_it_waits_for_a_place() -> None:
    before = threading.active_count()
    batches = Prefetcher(lambda step: step, 0, 10**9, ahead=1)
    next(batches)
    time.sleep(0.05)
    batches.close()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(batches)
