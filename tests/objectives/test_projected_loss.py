"""The loss without logits is the loss of the logits, value and gradients, however it is cut."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.objectives.projected_loss import OfBlock, next_token_loss, nll_and_gradient, projected_lm_loss
from headstart.objectives.token_loss import masked_lm_loss

VOCAB, DIM = 41, 12


def inputs(bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """hidden [3, 7, dim], weight, bias, targets [3, 7], weights [3, 7]; sure of some targets, so that p comes close to 1."""
    random = torch.Generator().manual_seed(0)
    hidden = (3 * torch.randn(3, 7, DIM, generator=random)).requires_grad_()
    weight = torch.randn(VOCAB, DIM, generator=random).requires_grad_()
    offset = torch.randn(VOCAB, generator=random).requires_grad_() if bias else None
    targets = F.linear(hidden, weight).argmax(-1)
    targets[0] = torch.randint(0, VOCAB, (7,), generator=random)
    return hidden, weight, offset, targets, torch.rand(3, 7, generator=random).round()


def plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, weights: Tensor | None) -> Tensor:
    return masked_lm_loss(F.linear(hidden, weight, bias), targets, weights)


@pytest.mark.parametrize("chunk", [1, 3 * VOCAB, 10**6])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradients(chunk: int, bias: bool, weighted: bool) -> None:
    hidden, weight, offset, targets, weights = inputs(bias)
    counted = weights if weighted else None
    learned = [part for part in (hidden, weight, offset) if part is not None]
    theirs = plain(hidden, weight, offset, targets, counted)
    mine = projected_lm_loss(hidden, weight, offset, targets, counted, chunk=chunk)
    torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)
    expected = torch.autograd.grad(3 * theirs, learned)  # an upstream gradient that is not 1
    for a, b in zip(torch.autograd.grad(3 * mine, learned), expected, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("chunk", [3 * VOCAB, 10**6])
@pytest.mark.parametrize("bias", [False, True])
def test_what_is_compiled_for_blocks_gives_the_same(chunk: int, bias: bool) -> None:
    hidden, weight, offset, targets, weights = inputs(bias)
    learned = [part for part in (hidden, weight, offset) if part is not None]
    found = []
    for of_block in (None, nll_and_gradient):
        loss = projected_lm_loss(hidden, weight, offset, targets, weights, chunk=chunk, of_block=of_block)
        found.append([loss, *torch.autograd.grad(3 * loss, learned)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("chunk", [3 * VOCAB, 10**6])
def test_in_bf16_it_is_as_close_to_fp32_as_the_plain_way(chunk: int) -> None:
    hidden, weight, offset, targets, weights = inputs()
    learned = [part for part in (hidden, weight, offset) if part is not None]
    exact = torch.autograd.grad(plain(hidden, weight, offset, targets, weights), learned)
    found = []
    for way in (plain, lambda *parts: projected_lm_loss(*parts, chunk=chunk)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = way(hidden, weight, offset, targets, weights)
        assert loss.dtype == torch.float32
        found.append(torch.autograd.grad(loss, learned))
    for theirs, mine, truth in zip(*found, exact, strict=True):
        assert mine.dtype == truth.dtype
        assert float((mine - truth).norm()) < 1.3 * float((theirs - truth).norm()) + 1e-5 * float(truth.norm())


@pytest.mark.parametrize("of_block", [None, nll_and_gradient], ids=["in place", "one expression"])
def test_a_target_that_is_nearly_certain_keeps_its_gradient_in_bf16(of_block: OfBlock | None) -> None:
    """p = .9995 rounds to 1 in bf16; its gradient must not round to 0."""
    hidden = torch.tensor([[1.0]], requires_grad=True)
    weight = torch.tensor([[math.log(1999.0)], [0.0]], requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected_lm_loss(hidden, weight, None, torch.tensor([0]), None, of_block=of_block).backward()
    assert weight.grad is not None
    assert weight.grad[0, 0].item() == pytest.approx(-5e-4, rel=0.05)


def test_what_does_not_learn_gets_no_gradient_and_nothing_is_kept_without_grad() -> None:
    hidden, weight, offset, targets, weights = inputs()
    projected_lm_loss(hidden.detach(), weight, offset.detach() if offset is not None else None, targets, weights).backward()
    assert hidden.grad is None
    assert weight.grad is not None
    with torch.no_grad():
        assert not projected_lm_loss(hidden, weight, offset, targets, weights).requires_grad
    assert projected_lm_loss(hidden[:0], weight, offset, targets[:0], weights[:0]).item() == 0
    assert projected_lm_loss(hidden, weight, offset, targets, torch.zeros(3, 7)).item() == 0


def test_a_second_backward_pass_is_refused() -> None:
    hidden, weight, offset, targets, weights = inputs()
    loss = projected_lm_loss(hidden, weight, offset, targets, weights)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated already"):
        loss.backward()


def test_twenty_steps_of_a_tied_network_stay_with_the_plain_way() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(VOCAB, DIM)
    ids = torch.randint(0, VOCAB, (4, 9))
    losses: list[list[float]] = []
    for way in ("plain", "projected"):
        model = copy.deepcopy(table)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses.append([])
        for _ in range(20):
            optimizer.zero_grad()
            hidden = model(ids[:, :-1]).cumsum(1)
            if way == "plain":
                loss = plain(hidden, model.weight, None, ids[:, 1:], None)
            else:
                loss = projected_lm_loss(hidden, model.weight, None, ids[:, 1:], None, chunk=5 * VOCAB)
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0][-1] < losses[0][0] - 0.5
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_next_token_loss_scores_what_is_not_padding() -> None:
    """Uniform logits over 5 ids cost ln 5 a token; of 2 x 3 next tokens one is padding."""
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 0]])
    mask = ids > 0
    output = nn.Linear(2, 5)
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    hidden = torch.randn(2, 4, 2)
    loss, predicted = next_token_loss(hidden, output, ids, mask)
    assert loss.item() == pytest.approx(math.log(5), abs=1e-5)
    assert predicted == 5
    assert next_token_loss(hidden, output, ids, None)[1] == 6
    nn.init.normal_(output.weight)
    before = next_token_loss(hidden, output, ids, mask)[0]
    hidden[:, -1] += 7.0  # what the last position says is not scored
    hidden[1, 2] -= 9.0  # nor what comes before padding
    assert next_token_loss(hidden, output, ids, mask)[0] == before
