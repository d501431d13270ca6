"""Token losses, sampling and ranking."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from headstart.objectives.ranking import auc
from headstart.objectives.token_loss import gather_positions, masked_lm_loss, rtd_loss, sample_tokens, token_nll


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_gather_positions_and_its_gradient() -> None:
    hidden = torch.randn(2, 5, 3, generator=generator(), requires_grad=True)
    positions = torch.tensor([[1, 1, 4], [0, 2, 2]])
    gathered = gather_positions(hidden, positions)
    assert torch.equal(gathered, hidden.gather(1, positions[..., None].expand(-1, -1, 3)))
    gathered.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad[..., 0].tolist() == [[0, 2, 0, 0, 1], [1, 0, 2, 0, 0]]


def test_loss_counts_weights_over_the_whole_batch() -> None:
    logits = torch.randn(2, 3, 7, generator=generator())
    targets = torch.randint(0, 7, (2, 3), generator=generator())
    weights = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(2, 3)
    torch.testing.assert_close(token_nll(logits, targets), nll)
    torch.testing.assert_close(masked_lm_loss(logits, targets, weights), (nll[0, 0] + nll[0, 1] + nll[1, 0]) / 3)
    torch.testing.assert_close(masked_lm_loss(logits, targets, None), nll.mean())
    assert masked_lm_loss(logits, targets, torch.zeros(2, 3)) == 0


def test_losses_are_float32_for_bf16_logits() -> None:
    logits = torch.randn(2, 3, 7, generator=generator()).bfloat16()
    assert token_nll(logits, torch.zeros(2, 3, dtype=torch.int64)).dtype == torch.float32
    assert rtd_loss(logits[..., 0], torch.zeros(2, 3, dtype=torch.bool), None).dtype == torch.float32


def test_samples_never_have_probability_zero() -> None:
    logits = torch.tensor([-1e9, 0.0, -1e9, 0.0, -1e9]).expand(4, 5)
    uniform = torch.tensor([0.0, 0.49, 0.51, 1 - 2**-24])
    assert sample_tokens(logits, uniform).tolist() == [1, 1, 3, 3]


def test_auc_counts_pairs() -> None:
    random = generator()
    scores = torch.randn(300, generator=random).round(decimals=1)  # many ties
    labels = torch.rand(300, generator=random) < 0.2
    weights = torch.rand(300, generator=random) < 0.7
    positive, negative = scores[labels & weights], scores[~labels & weights]
    pairs = (positive[:, None] > negative).double() + 0.5 * (positive[:, None] == negative)
    torch.testing.assert_close(auc(scores, labels, weights), pairs.mean().float())
    assert auc(torch.tensor([1.0, 2.0]), torch.tensor([False, True])) == 1.0
    assert bool(auc(torch.tensor([1.0, 2.0]), torch.tensor([True, True])).isnan())
