"""Masking: counts, candidates, groups, and what a hidden slot shows."""

from __future__ import annotations

import torch

from headstart.core.rng import Rng
from headstart.objectives.masking import apply_masking, choose_groups, choose_positions, masking_slots, scatter, slot_counts, span_groups, word_groups

LENGTH = 64


def rng(rows: int, step: int = 0) -> Rng:
    return Rng.at(3, step, torch.arange(rows))


def rows(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Candidates of full rows: all but the first and last token; and their token counts."""
    candidates = torch.ones(n, LENGTH, dtype=torch.bool)
    candidates[:, [0, -1]] = False
    return candidates, torch.full((n,), LENGTH)


def words(n: int) -> torch.Tensor:
    """Words of one to four pieces, repeated over the row; the specials are words of their own."""
    lengths = [1] + [1, 3, 2, 1, 4, 1, 2] * 20
    group = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[:LENGTH].clone()
    group[-1] = group[-2] + 1
    return group.expand(n, LENGTH)


def test_slots_and_counts_round_as_tensorflow() -> None:
    assert [masking_slots(p, n) for p, n in [(0.15, 128), (0.15, 512), (0.25, 512)]] == [19, 79, 130]
    assert slot_counts(torch.tensor([3, 10, 30, 50]), 0.15, 19).tolist() == [1, 2, 4, 8]  # 1.5 -> 2, 4.5 -> 4, 7.5 -> 8


def test_one_slot_at_least() -> None:
    assert masking_slots(0.15, 4) == 1


def test_positions_are_candidates_and_weights_count_them() -> None:
    candidates, n_tokens = rows(500)
    candidates[1, 5:] = False
    n_tokens[1] = 6
    for replacement in (True, False):
        positions, weights = choose_positions(rng(500), candidates, n_tokens, 0.25, 16, replacement)
        assert positions.shape == weights.shape == (500, 16)
        used = weights > 0
        assert bool(candidates.gather(1, positions)[used].all())
        assert int(positions[~used].sum()) == 0
        assert weights.sum(1)[0] == 16
        assert weights.sum(1)[1] == 2  # round(1.5)


def test_each_candidate_is_equally_likely() -> None:
    candidates, n_tokens = rows(20000)
    for replacement in (True, False):
        positions, _ = choose_positions(rng(20000), candidates, n_tokens, 0.25, 16, replacement)
        share = torch.bincount(positions.flatten(), minlength=LENGTH)[1:-1] / positions.numel() * 62
        assert (share - 1).abs().max() < 0.07  # five standard deviations of 320,000 draws over 62 places


def test_without_replacement_positions_differ() -> None:
    candidates, n_tokens = rows(200)
    positions, _ = choose_positions(rng(200), candidates, n_tokens, 0.25, 16, replacement=False)
    assert all(len(set(row.tolist())) == 16 for row in positions)
    with_replacement, _ = choose_positions(rng(200), candidates, n_tokens, 0.25, 16, replacement=True)
    assert any(len(set(row.tolist())) < 16 for row in with_replacement)


def test_a_row_with_fewer_tokens_than_slots_has_a_slot_for_each() -> None:
    """A short text that is sampled from, beside rows of training: two of four tokens may be hidden, 15 % of 512 would be 79."""
    candidates = torch.tensor([[False, True, True, False]])
    positions, weights = choose_positions(rng(1), candidates, torch.tensor([4]), 0.5, 79, replacement=False)
    assert positions.shape == weights.shape == (1, 4)
    assert sorted(positions[0, :2].tolist()) == [1, 2]
    assert weights.tolist() == [[1, 1, 0, 0]]


def test_a_row_without_candidates_counts_nothing() -> None:
    candidates = torch.zeros(2, LENGTH, dtype=torch.bool)
    for replacement in (True, False):
        positions, weights = choose_positions(rng(2), candidates, torch.full((2,), LENGTH), 0.25, 16, replacement)
        assert weights.sum() == 0
        assert positions.sum() == 0


def test_masks_follow_the_row_not_the_batch() -> None:
    candidates, n_tokens = rows(8)
    whole, _ = choose_positions(Rng.at(3, 0, torch.arange(8)), candidates, n_tokens, 0.25, 16, True)
    part, _ = choose_positions(Rng.at(3, 0, torch.tensor([6, 2])), candidates[:2], n_tokens[:2], 0.25, 16, True)
    assert torch.equal(part, whole[[6, 2]])
    groups, _ = choose_groups(Rng.at(3, 0, torch.arange(8)), words(8), candidates, n_tokens, 0.25, 16, False)
    part, _ = choose_groups(Rng.at(3, 0, torch.tensor([6, 2])), words(2), candidates[:2], n_tokens[:2], 0.25, 16, False)
    assert torch.equal(part, groups[[6, 2]])


def test_word_groups_follow_the_table() -> None:
    continues = torch.tensor([False, False, True, True, False])
    assert word_groups(torch.tensor([[0, 1, 2, 3, 4, 1, 2]]), continues).tolist() == [[0, 1, 1, 1, 2, 3, 3]]


def test_whole_words_stay_whole_and_fill_the_count() -> None:
    candidates, n_tokens = rows(2000)
    group = words(2000)
    positions, weights = choose_groups(rng(2000), group, candidates, n_tokens, 0.25, 16, cut_last=False)
    chosen = torch.zeros(2000, LENGTH, dtype=torch.bool)
    chosen[torch.arange(2000)[:, None].expand_as(positions)[weights > 0], positions[weights > 0]] = True
    assert not bool((chosen & ~candidates).any())
    per_group = torch.zeros(2000, LENGTH).scatter_add_(1, group, chosen.float())
    size = torch.zeros(2000, LENGTH).scatter_add_(1, group, candidates.float())
    assert bool(((per_group == 0) | (per_group == size)).all())
    assert chosen.sum(1).max() == 16
    assert chosen.sum(1).float().mean() > 15.9  # words that do not fit are passed over for smaller ones


def test_a_word_longer_than_the_count_is_cut_rather_than_none_chosen() -> None:
    candidates = torch.ones(1, LENGTH, dtype=torch.bool)
    positions, weights = choose_groups(rng(1), torch.zeros(1, LENGTH, dtype=torch.int64), candidates, torch.tensor([LENGTH]), 0.25, 16, False)
    assert weights.sum() == 16
    assert len(set(positions[0].tolist())) == 16


def test_spans_are_geometric_and_cut_at_the_count() -> None:
    tokens = torch.arange(LENGTH).repeat(4000, 1)
    spans = span_groups(rng(4000), tokens)
    lengths = torch.bincount((spans + LENGTH * torch.arange(4000)[:, None]).flatten(), minlength=4000 * LENGTH).view(4000, LENGTH)
    first = lengths[:, 0]  # never cut by the end of the row
    share = torch.bincount(first, minlength=11)[1:11] / 4000
    expected = torch.tensor([0.2 * 0.8**k / (1 - 0.8**10) for k in range(10)])
    assert (share - expected).abs().max() < 0.03
    assert first.max() <= 10
    assert abs(first.float().mean() - 3.8) < 0.15  # SpanBERT, section 3.1
    candidates, n_tokens = rows(4000)
    positions, weights = choose_groups(rng(4000), spans, candidates, n_tokens, 0.25, 16, cut_last=True)
    assert bool((weights == 1).all())
    ordered = positions.sort(1).values
    assert bool((ordered[:, 1:] > ordered[:, :-1]).all())
    joined = (ordered[:, 1:] - ordered[:, :-1] == 1).float().mean()
    assert joined > 0.6  # single positions would give about 0.24


def test_shares_of_mask_random_and_unchanged() -> None:
    ids = torch.full((4000, LENGTH), 7)
    candidates, n_tokens = rows(4000)
    positions, weights = choose_positions(rng(4000), candidates, n_tokens, 0.25, 16, replacement=False)
    shown = apply_masking(ids, positions, weights, 4, rng(4000), mask_share=0.8, random_share=0.1, vocab_size=1000).gather(1, positions)
    assert abs((shown == 4).float().mean() - 0.8) < 0.01
    assert abs((shown == 7).float().mean() - 0.1) < 0.01
    other = shown[(shown != 4) & (shown != 7)]
    assert 400 < other.float().mean() < 600
    electra = apply_masking(ids, positions, weights, 4, rng(4000))
    assert abs((electra.gather(1, positions) == 4).float().mean() - 0.85) < 0.01
    assert set(electra.unique().tolist()) == {4, 7}


def test_scatter_first_slot_wins_and_position_zero_is_never_written() -> None:
    ids = torch.tensor([[101, 7, 8, 9, 102]])
    positions, weights = torch.tensor([[2, 2, 3, 0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    new, written = scatter(ids, positions, weights, torch.tensor([[40, 60, 9, 55]]))
    assert new.tolist() == [[101, 7, 40, 9, 102]]
    assert written.tolist() == [[False, False, True, True, False]]
    mean, _ = scatter(ids, positions, weights, torch.tensor([[40, 60, 9, 55]]), official_duplicate_mean=True)
    assert mean.tolist() == [[101, 7, 50, 9, 102]]
