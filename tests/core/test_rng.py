"""The counter-based generator: what it is keyed on, and that its numbers are random."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from headstart.core.rng import Rng, mix_int, step_key


def rng(seed: int = 0, step: int = 0, rows: int = 512, first: int = 0) -> Rng:
    return Rng.at(seed, step, torch.arange(first, first + rows))


def test_splitmix64_gives_the_published_first_outputs() -> None:
    """Vigna's splitmix64.c, seed 1234567: its state grows by the golden constant before each output."""
    golden = 0x9E3779B97F4A7C15
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [mix_int(1234567 + (i + 1) * golden) for i in range(5)] == expected


def test_tensor_arithmetic_equals_integer_arithmetic() -> None:
    from headstart.core import rng as module

    values = [0, 1, 2**31, 2**63 - 1, -1, -(2**63), 123456789012345]
    assert module._mix(torch.tensor(values)).tolist() == [module._signed(mix_int(v)) for v in values]


@pytest.mark.promise("Masks and samples are functions of (seed, step, row): another micro-batch draws the same ones.")
def test_draws_depend_on_seed_step_name_and_row_only() -> None:
    base = rng().bits("mask", 8)
    assert not torch.equal(base, rng(seed=1).bits("mask", 8))
    assert not torch.equal(base, rng(step=1).bits("mask", 8))
    assert not torch.equal(base, rng().bits("sample", 8))
    order = torch.randperm(512, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Rng.at(0, 0, order).bits("mask", 8), base[order])


@pytest.mark.promise("Masks and samples are functions of (seed, step, row): another micro-batch draws the same ones.")
@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batches_draw_the_same_numbers(micro_batch: int) -> None:
    whole = rng(rows=8).uniform("noise", 3, 5)
    parts = [rng(rows=micro_batch, first=start).uniform("noise", 3, 5) for start in range(0, 8, micro_batch)]
    assert torch.equal(torch.cat(parts), whole)


def test_the_first_draws_do_not_depend_on_how_many_follow() -> None:
    assert torch.equal(rng().bits("mask", 4), rng().bits("mask", 9)[:, :4])


def test_uniform_passes_kolmogorov_smirnov_within_rows_and_across_rows_steps_and_names() -> None:
    samples = {
        "within a row": rng(rows=1).uniform("u", 200_000).flatten(),
        "across rows": rng(rows=200_000).uniform("u", 1).flatten(),
        "across steps": torch.cat([rng(step=s, rows=1).uniform("u", 1).flatten() for s in range(5_000)]),
        "across names": torch.cat([rng(rows=1).uniform(f"u{i}", 1).flatten() for i in range(5_000)]),
    }
    for what, sample in samples.items():
        assert sample.min() >= 0, what
        assert sample.max() < 1, what
        assert stats.kstest(sample.numpy(), "uniform").pvalue > 1e-3, what


def test_all_64_bits_are_balanced_and_neighbours_are_uncorrelated() -> None:
    bits = rng(rows=2_000).bits("b", 50).numpy().view(np.uint64)
    ones = [int(((bits >> np.uint64(i)) & np.uint64(1)).sum()) for i in range(64)]
    assert max(abs(n - bits.size / 2) for n in ones) < 5 * np.sqrt(bits.size) / 2
    u = rng(rows=2_000).uniform("b", 50).numpy()
    for a, b in ((u[:, :-1], u[:, 1:]), (u[:-1], u[1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)


def test_pairs_of_neighbouring_rows_fill_the_square() -> None:
    """A weak key shows as structure between row i and row i + 1: chi-square over 64 x 64 cells."""
    u = rng(rows=400_001).uniform("u", 1).flatten().numpy()
    cells = np.histogram2d(u[:-1], u[1:], bins=64, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(cells.ravel()).pvalue > 1e-3


def test_integers_are_uniform_and_in_range() -> None:
    drawn = rng(rows=1000).integers("i", 7, 100)
    assert stats.chisquare(torch.bincount(drawn.flatten(), minlength=7).numpy()).pvalue > 1e-3
    assert drawn.max() == 6
    with pytest.raises(ValueError, match="high"):
        rng().integers("i", 0, 1)


def test_normal_is_standard_normal() -> None:
    drawn = rng(rows=1000).normal("n", 200).flatten()
    assert torch.isfinite(drawn).all()
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-3


def test_the_key_is_a_tensor_so_that_a_captured_graph_sees_the_next_step() -> None:
    live = rng(rows=4)
    before = live.bits("mask", 3)
    live.key.fill_(step_key(0, 1))
    assert torch.equal(live.bits("mask", 3), rng(step=1, rows=4).bits("mask", 3))
    assert not torch.equal(live.bits("mask", 3), before)
