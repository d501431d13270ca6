"""RecAdam, MARS and R3F: each held to a number that is worked by hand, and to what it is for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.core.errors import UsageError
from headstart.tasks.config import FinetuneConfig, RegulariserConfig
from headstart.tasks.finetune import _check
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.regularise import Regulariser, annealed, away_from, for_random_start, noised_embeddings, symmetric_kl


class Net(nn.Module):
    """One pre-trained layer under one new one."""

    def __init__(self, start: float = 0.5) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.encoder.weight.fill_(start)
            self.head.weight.fill_(start)


def regulariser(net: Net, rate: float = 0.01, decay: float = 0.0, **settings: Any) -> tuple[Regulariser, torch.optim.Optimizer]:
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay, eps=1e-12)
    return Regulariser(RegulariserConfig(**settings), net.encoder, optimizer, rate), optimizer


def grads(net: Net, value: float) -> None:
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, value)


def test_recadam_by_hand() -> None:
    """k 0, so lambda is 1/2; Adam's first step is the rate. Step 1: .5 - .005 = .495, the pull of .01 * .5 * 20 = .1 of -.005: .4955, decay
    .01 * .1 of it: .4950045. Step 2: -.005 more: .4900045, the pull of -.0099955: .49100405, decay: .490513046."""
    net = Net()
    keeping, _ = regulariser(net, decay=0.1, name="recadam", gamma=20.0, k=1e-30)
    for expected in (0.4950045, 0.490513046):
        grads(net, 3.0)
        keeping.step()
        assert net.encoder.weight.item() == pytest.approx(expected, abs=1e-7)
    head = 0.5
    for _ in range(2):
        head = head * (1 - 0.01 * 0.1) - 0.01
    assert net.head.weight.item() == pytest.approx(head, abs=1e-7), "a new head is trained as always"


def test_recadam_changes_from_the_pull_to_the_loss() -> None:
    assert annealed(250, 0.2, 250) == 0.5
    assert annealed(260, 0.2, 250) == pytest.approx(1 / (1 + math.exp(-2)))
    assert annealed(1, 1, 5000) < 1e-300
    net = Net()
    keeping, _ = regulariser(net, name="recadam", gamma=50.0, k=1.0, t0=20.0)
    moved = []
    for _ in range(40):
        grads(net, 1.0)
        keeping.step()
        moved.append(0.5 - net.encoder.weight.item())
    assert moved[9] < 1e-5, "held"
    assert moved[-1] > 0.1, "free"


def test_a_pull_that_would_go_past_the_start_is_refused() -> None:
    with pytest.raises(UsageError, match="RecAdam's pull is 5 a step"):
        regulariser(Net(), rate=1e-3, name="recadam")
    regulariser(Net(), rate=2e-5, name="recadam")


def test_mars_by_hand() -> None:
    """Rows that moved by 1 + 2 + 1 and .5 + 0 + .5, radius 2: the first is halved, the second stays."""
    start = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    moved = torch.tensor([[2.0, -1.0, 2.0], [0.5, 0.0, -0.5]])
    torch.testing.assert_close(away_from(moved, start, 2.0), torch.tensor([[1.5, 0.0, 1.5], [0.5, 0.0, -0.5]]))
    kernel = torch.ones(2, 3, 2, 2)
    torch.testing.assert_close(away_from(kernel, torch.zeros_like(kernel), 6.0), kernel / 2)  # 12 a filter


def test_mars_holds_the_encoder_and_not_the_head() -> None:
    net = Net()
    keeping, _ = regulariser(net, rate=0.5, name="mars", radius=0.2)
    for _ in range(5):
        grads(net, 1.0)
        keeping.step()
    assert net.encoder.weight.item() == pytest.approx(0.3)
    assert net.head.weight.item() < -1


def test_r3f_by_hand() -> None:
    """p = (.75, .25), q = (.5, .5): KL(p||q) = .130812, KL(q||p) = .143841; twice in a batch of two."""
    noised = torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log()
    clean = torch.zeros(2, 2)
    assert float(symmetric_kl(noised, clean)) == pytest.approx(2 * (0.130812 + 0.143841), abs=1e-5)
    assert float(symmetric_kl(clean, noised)) == float(symmetric_kl(noised, clean))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(7, 3)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids)


def test_noise_is_uniform_small_and_without_a_gradient() -> None:
    words, ids = Words(), torch.arange(7).repeat(300)
    clean = words(ids)
    with noised_embeddings(words, 0.1):
        noised = words(ids)
    noise = noised - clean
    assert noise.abs().max() <= 0.1
    assert noise.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.05)
    assert not noised.requires_grad
    assert words(ids).requires_grad, "and the noise is gone"


def test_r3f_adds_its_weight_times_the_divergence() -> None:
    words, ids = Words(), torch.arange(4)
    answer = lambda: words(ids)  # noqa: E731
    found = {}
    for weight in (1.0, 3.0):
        config = RegulariserConfig(name="r3f", weight=weight, noise=0.3)
        keeping = Regulariser(config, words, torch.optim.SGD(words.parameters()), 0.1)
        torch.manual_seed(5)
        found[weight] = float(keeping.divergence(words, answer, answer()))
    assert found[1.0] > 0
    assert found[3.0] == pytest.approx(3 * found[1.0])


def test_a_random_start_has_nothing_to_keep() -> None:
    for config in (FinetuneConfig(), ImageFinetuneConfig()):
        for name, left in (("recadam", "none"), ("mars", "none")):
            config.regulariser = RegulariserConfig(name=name)  # type: ignore[arg-type]
            assert for_random_start(config).regulariser.name == left
    assert for_random_start(FinetuneConfig(regulariser=RegulariserConfig(name="r3f"))).regulariser.name == "r3f"


def test_what_has_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="r3f, noise on word embeddings"):
        ImageFinetuneConfig(regulariser=RegulariserConfig(name="r3f"))
    with pytest.raises(UsageError, match="A probe trains a head alone"):
        ImageFinetuneConfig(regulariser=RegulariserConfig(name="mars"), linear_probe="regression")
    with pytest.raises(UsageError, match="which tagging has none of"):
        _check("tagging", FinetuneConfig(regulariser=RegulariserConfig(name="r3f")), None)
    with pytest.raises(UsageError, match=r"--regulariser\.radius is 0"):
        FinetuneConfig(regulariser=RegulariserConfig(radius=0)).check()
    assert np.isfinite(RegulariserConfig().gamma)
