"""Cheap measurements on frozen features: kNN accuracy, linear probe, RankMe. Pure functions of tensors, the same result every time.

The features of a run's backbone tell early what its loss does not: whether what it learned is of use (facebookresearch/dino#61, swav#62).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK = 4096  # test rows compared at once: 4096 x 50,000 similarities are 0.8 GB
LinearProbe: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""weight [dim, classes], bias [classes], and the mean [dim] and scale [dim] that standardise the features (a constant one keeps scale 1)."""


@torch.no_grad()
def embed_all(embed: Callable[[Any], Tensor], batches: Iterable[Any]) -> Tensor:
    """Features of all batches, one after another: float32 [n, dim] on the device of `embed`; nothing waits between batches."""
    return torch.cat([embed(batch).float() for batch in batches])


def knn_accuracy(
    train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor, k: int = 20, temperature: float = 0.07
) -> float:
    """Accuracy of `knn_predictions`.

    Args:
        test_labels: int64 [m], 0..classes-1; the others as there.
    """
    predicted = knn_predictions(train_features, train_labels, test_features, k, temperature)
    return int((predicted == test_labels).sum()) / len(test_labels)


@torch.no_grad()
def knn_predictions(train_features: Tensor, train_labels: Tensor, test_features: Tensor, k: int = 20, temperature: float = 0.07) -> Tensor:
    """int64 [m]: the vote of the `k` nearest training rows by cosine, each weighted exp(cosine / temperature) (Wu et al. 2018).

    Args:
        train_features, test_features: [n, dim] and [m, dim].
        train_labels: int64 [n], 0..classes-1.
        k: at most n.
    """
    train = F.normalize(train_features.float(), dim=1)
    test = F.normalize(test_features.float(), dim=1)
    n_classes = int(train_labels.max()) + 1
    found = []
    for part in test.split(_CHUNK):
        cosine, nearest = (part @ train.T).topk(min(k, len(train)), dim=1)  # [chunk, k]
        votes = cosine.new_zeros(len(part), n_classes).scatter_add_(1, train_labels[nearest], ((cosine - 1.0) / temperature).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)


def linear_probe(
    train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor, l2: float = 1.0, max_iterations: int = 200
) -> float:
    """Test accuracy of multinomial logistic regression on standardised features.

    Args:
        train_features, test_features: [n, dim] and [m, dim].
        train_labels, test_labels: int64 [n] and [m], 0..classes-1.
        l2: the minimised loss is the sum of the cross-entropies + l2/2 |W|^2 (scikit-learn's C is 1/l2); biases are free.
    """
    predicted = linear_predictions(fit_linear_probe(train_features, train_labels, l2, max_iterations), test_features)
    return float((predicted == test_labels).double().mean())


def linear_predictions(probe: LinearProbe, features: Tensor) -> Tensor:
    """int64 [m]: the class that a fitted probe gives each row of [m, dim]."""
    weight, bias, mean, scale = probe
    return ((features.double() - mean) / scale @ weight + bias).argmax(1)


def fit_linear_probe(features: Tensor, labels: Tensor, l2: float = 1.0, max_iterations: int = 200) -> LinearProbe:
    """The probe itself, by L-BFGS in float64 from zero."""
    x = features.detach().double()
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 1e-12, scale, torch.ones_like(scale))
    x = (x - mean) / scale
    n, classes = len(x), int(labels.max()) + 1
    weight = torch.zeros(x.shape[1], classes, dtype=torch.float64, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, device=x.device, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=max_iterations, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, labels) + l2 / (2 * n) * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return weight.detach(), bias.detach(), mean, scale


@torch.no_grad()
def rankme(features: Tensor) -> float:
    """The effective rank of the features, exp of the entropy of the normalised singular values (Garrido et al. 2023, Eq. 1): 1 when all rows lie on a
    line, min(n, dim) when they fill the space evenly.

    Args:
        features: [n, dim]; the paper takes n of 25,600, and the value is lower for fewer rows than dimensions.
    """
    sigma = torch.linalg.svdvals(features.double())
    p = sigma / sigma.sum() + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))
