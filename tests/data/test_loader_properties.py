"""What a run may rely on, for any seed, world size, micro-batch, mixture and history of stops: the order of samples is a function of (seed, step).

A run is simulated as its process groups make it: each group trains some steps, all of its ranks asking the real loader for the rows of their
micro-batches, and dies; of these steps the last checkpoint has kept some; the next group, of another layout, goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data.loader import Loader
from headstart.data.mixture import Mixture
from headstart.engine.distributed import Ranks
from headstart.engine.trial import micro_starts
from tests.data.test_mixture import Numbers

GLOBAL_BATCHES = (1, 6, 8, 12, 24)
BASE = 100_000  # row i of part p is the number p * BASE + i

fixed = settings(max_examples=60, deadline=None, derandomize=True)


Made: TypeAlias = tuple[list[int], list[int] | None, int]
"""Of a mixture: rows of each part, weights, seed."""


@dataclass(frozen=True)
class Group:
    """The processes between two starts of a run."""

    world: int
    micro_batch: int
    trained: int  # steps
    kept: int  # of these, steps that a checkpoint holds


History: TypeAlias = tuple[Made, int, list[Group]]
"""A mixture, a global batch, and the groups that lived."""


@st.composite
def groups(draw: st.DrawFn, global_batch: int) -> Group:
    world = draw(st.sampled_from([n for n in range(1, global_batch + 1) if global_batch % n == 0]))
    micro_batch = draw(st.sampled_from([n for n in range(1, global_batch // world + 1) if (global_batch // world) % n == 0]))
    trained = draw(st.integers(0, 6))
    return Group(world, micro_batch, trained, draw(st.integers(0, trained)))


@st.composite
def mixtures(draw: st.DrawFn) -> Made:
    sizes = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    weights = draw(st.one_of(st.none(), st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes))))
    return sizes, weights, draw(st.integers(0, 2**31))


@st.composite
def histories(draw: st.DrawFn) -> History:
    global_batch = draw(st.sampled_from(GLOBAL_BATCHES))
    return draw(mixtures()), global_batch, draw(st.lists(groups(global_batch), min_size=1, max_size=5))


def loader_of(mixture: Made, global_batch: int) -> Loader:
    sizes, weights, seed = mixture
    return Loader(Mixture([Numbers(n, base=part * BASE) for part, n in enumerate(sizes)], weights, seed, by="rows"), global_batch)


def of_step(loader: Loader, step: int, world: int, micro_batch: int) -> list[int]:
    """The samples of a step as the ranks of a group load them, micro-step by micro-step, in the order of ranks."""
    starts = [micro_starts(loader.global_batch, micro_batch, Ranks(rank, world)) for rank in range(world)]
    loaded = [loader.batch(step, start, start + micro_batch)["input_ids"] for micro_step in zip(*starts, strict=True) for start in micro_step]
    assert all(samples.shape == (micro_batch, 1) for samples in loaded)
    return [int(sample) for samples in loaded for sample in samples]


def lived(mixture: Made, global_batch: int, history: list[Group]) -> tuple[list[int], list[tuple[int, list[int]]]]:
    """(the samples that the run's weights have seen, every step that was trained with its samples, those that were lost and trained again too)."""
    kept: list[int] = []
    trained: list[tuple[int, list[int]]] = []
    step = 0
    for group in history:
        loader = loader_of(mixture, global_batch)  # a new process: nothing is left of the old one's loader
        done = [of_step(loader, step + i, group.world, group.micro_batch) for i in range(group.trained)]
        trained += [(step + i, samples) for i, samples in enumerate(done)]
        for samples in done[: group.kept]:
            kept += samples
        step += group.kept
    return kept, trained


@pytest.mark.promise(
    "Stopped and continued at any step, on any number of processes and with any micro-batch, a run reads the same samples in the same order: "
    "none is skipped, none repeated."
)
@fixed
@given(histories())
def test_no_stop_and_no_layout_changes_the_order(history: History) -> None:
    mixture, global_batch, life = history
    kept, trained = lived(mixture, global_batch, life)
    undisturbed = loader_of(mixture, global_batch)
    steps = sum(group.kept for group in life)
    assert kept == [int(row) for step in range(steps) for row in undisturbed.batch(step)["input_ids"][:, 0]]
    for step, samples in trained:  # what was trained and lost is trained again, the same
        assert samples == undisturbed.batch(step)["input_ids"][:, 0].tolist()


@pytest.mark.promise("Each sample of an epoch is seen exactly once, however often the run is stopped, and on however many processes it continues.")
@fixed
@given(histories())
def test_each_sample_of_an_epoch_is_seen_exactly_once(history: History) -> None:
    mixture, global_batch, life = history
    kept, _ = lived(mixture, global_batch, life)
    for part, size in enumerate(mixture[0]):
        rows = [sample - part * BASE for sample in kept if sample // BASE == part]
        whole = len(rows) // size
        for epoch in range(whole):
            assert sorted(rows[epoch * size : (epoch + 1) * size]) == list(range(size))
        begun = rows[whole * size :]
        assert len(set(begun)) == len(begun)


@pytest.mark.promise("Each source has its exact share of the samples, to within two, in every window of a run, across stops too.")
@fixed
@given(histories(), st.data())
def test_a_window_over_stops_has_the_shares(history: History, data: st.DataObject) -> None:
    mixture, global_batch, life = history
    kept, _ = lived(mixture, global_batch, life)
    start = data.draw(st.integers(0, len(kept)))
    window = kept[start : data.draw(st.integers(start, len(kept)))]
    for part, share in enumerate(loader_of(mixture, global_batch).mixture.shares):
        assert abs(sum(sample // BASE == part for sample in window) - share * len(window)) < 2


@fixed
@given(mixtures(), st.integers(0, 3), st.integers(0, 10_000))
def test_a_step_far_away_costs_no_walk_there(mixture: Made, near: int, far: int) -> None:
    """The first thing that a resumed run asks for is the batch of its step; it equals the one that a run arrives at step by step."""
    fresh, walked = loader_of(mixture, 8), loader_of(mixture, 8)
    for step in range(far, far + near):
        walked.batch(step)
    assert fresh.batch(far + near)["input_ids"].tolist() == walked.batch(far + near)["input_ids"].tolist()
