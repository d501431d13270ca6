"""Probes on features whose answer is known by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from headstart.engine.probes import embed_all, fit_linear_probe, knn_accuracy, linear_probe, rankme


def test_knn_counts_direction_not_length() -> None:
    train = torch.tensor([[10.0, 0.0], [0.0, 1.0]])
    test = torch.tensor([[100.0, 1.0], [0.6, 0.8], [3.0, 0.0]])
    labels = torch.tensor([0, 1])
    assert knn_accuracy(train, labels, test, torch.tensor([0, 1, 0]), k=1) == 1.0
    assert knn_accuracy(train, labels, test, torch.tensor([1, 1, 0]), k=1) == pytest.approx(2 / 3)


def test_knn_takes_the_vote_of_k_neighbours() -> None:
    angles = torch.tensor([0.0, 0.20, 0.21, 1.5])
    train = torch.stack([angles.cos(), angles.sin()], 1)
    labels = torch.tensor([0, 1, 1, 0])
    test, truth = torch.tensor([[1.0, 0.05]]), torch.tensor([1])
    assert knn_accuracy(train, labels, test, truth, k=1) == 0.0
    assert knn_accuracy(train, labels, test, truth, k=3, temperature=1.0) == 1.0


def test_knn_weighs_near_neighbours_more() -> None:
    """One neighbour at cosine 1 against two at cosine .9: exp(0) = 1 against 2 exp(-.1/.07) = .48, but 2 exp(-.1) = 1.8 at temperature 1."""
    side = math.sqrt(1 - 0.81)
    train = torch.tensor([[1.0, 0.0], [0.9, side], [0.9, -side]])
    labels = torch.tensor([0, 1, 1])
    test = torch.tensor([[1.0, 0.0]])
    assert knn_accuracy(train, labels, test, torch.tensor([0]), k=3) == 1.0
    assert knn_accuracy(train, labels, test, torch.tensor([0]), k=3, temperature=1.0) == 0.0


def test_knn_on_more_rows_than_one_chunk() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (9000,))
    features = F.one_hot(labels, 3).float() + 0.01 * torch.randn(9000, 3)
    assert knn_accuracy(features[:50], labels[:50], features, labels, k=5) == 1.0
    assert knn_accuracy(features[:50], labels[:50], features, (labels + 1) % 3, k=5) == 0.0


def test_linear_probe_separates_what_is_separable_and_not_more() -> None:
    torch.manual_seed(0)
    labels = torch.arange(300) % 3
    features = F.one_hot(labels, 3).float() * 1000 + torch.randn(300, 3)
    assert linear_probe(features[:200], labels[:200], features[200:], labels[200:]) == 1.0
    assert linear_probe(torch.zeros(4, 2), torch.tensor([0, 1, 1, 1]), torch.zeros(2, 2), torch.tensor([0, 1])) == 0.5  # only the majority is left


def test_linear_probe_ends_at_the_optimum() -> None:
    """At the minimum of sum CE + l2/2 |W|^2 the gradient is zero: X'(p - y) + l2 W = 0."""
    torch.manual_seed(0)
    features, labels = torch.randn(60, 5) @ torch.randn(5, 5) + 3, torch.randint(0, 4, (60,))
    weight, bias, mean, scale = fit_linear_probe(features, labels, l2=0.5)
    x = (features.double() - mean) / scale
    error = (x @ weight + bias).softmax(1) - F.one_hot(labels, 4)
    assert (x.T @ error + 0.5 * weight).abs().max() < 1e-4
    assert error.sum(0).abs().max() < 1e-4
    assert x.mean(0).abs().max() < 1e-12
    assert torch.allclose(x.square().mean(0), torch.ones(5, dtype=torch.float64))


def test_linear_probe_is_the_same_every_time() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(80, 8), torch.randint(0, 2, (80,))
    first, again = (fit_linear_probe(features, labels)[0] for _ in range(2))
    assert torch.equal(first, again)


def test_linear_probe_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert linear_probe(torch.eye(2), torch.arange(2), torch.eye(2), torch.arange(2)) == 1.0


def test_rankme() -> None:
    assert rankme(torch.eye(8)) == pytest.approx(8, abs=1e-4)
    assert rankme(torch.ones(50, 8) * torch.arange(1, 51)[:, None]) == pytest.approx(1, abs=1e-4)
    sigma = torch.tensor([0.75, 0.25])  # entropy of (3/4, 1/4) is .562335
    assert rankme(torch.diag(sigma)) == pytest.approx(math.exp(0.5623351), abs=1e-5)
    assert rankme(10 * torch.diag(sigma)) == pytest.approx(rankme(torch.diag(sigma)))


def test_embed_all_keeps_the_order_and_returns_float32() -> None:
    batches = [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]])]
    found = embed_all(lambda batch: (2 * batch).bfloat16(), batches)
    assert found.tolist() == [[2.0], [4.0], [6.0]]
    assert found.dtype == torch.float32
