"""Linear probes: LARS by hand, what is folded computes the same, and the network stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.core.errors import UsageError
from headstart.engine.probes import knn_accuracy
from headstart.tasks.image_classification import build, finetune_images, frozen_features, statistics, train_classifier
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.image_network import load_classifier, predict
from headstart.tasks.image_probe import Lars, fit_head, folded, normalised_head
from tests.lit import lit, small_vit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_vit(tmp_path_factory.mktemp("vit"))


def test_lars_by_hand() -> None:
    """|w| = 5, |g| = 10, trust .1: the gradient is scaled by .05; vectors take it as it is; momentum .9."""
    weight, bias = nn.Parameter(torch.tensor([[3.0, 4.0]])), nn.Parameter(torch.tensor([1.0]))
    optimizer = Lars([weight, bias], lr=2.0, trust=0.1)
    weight.grad, bias.grad = torch.tensor([[6.0, 8.0]]), torch.tensor([0.5])
    optimizer.step()
    assert torch.allclose(weight, torch.tensor([[3 - 2 * 0.3, 4 - 2 * 0.4]]))
    assert torch.allclose(bias, torch.tensor([0.0]))
    weight.grad, bias.grad = torch.zeros(1, 2), torch.zeros(1)
    optimizer.step()
    assert torch.allclose(weight, torch.tensor([[2.4 - 2 * 0.27, 3.2 - 2 * 0.36]]))
    assert torch.allclose(bias, torch.tensor([-0.9]))


def test_batch_norm_is_folded_into_the_head() -> None:
    torch.manual_seed(0)
    head = normalised_head(nn.Linear(5, 3))
    features = torch.randn(64, 5) * torch.tensor([1.0, 20, 0.1, 3, 2]) + 7
    for _ in range(30):
        head(features)
    expected = head.eval()(features)
    assert torch.allclose(folded(head)(features), expected, atol=1e-5)


def test_regression_tells_what_is_linear_and_knows_classes_without_images() -> None:
    torch.manual_seed(0)
    features = torch.randn(200, 6) * torch.tensor([1.0, 100, 1, 1, 1, 1]) + 3
    labels = (features[:, 1] > 3).long()
    head = nn.Linear(6, 4)
    loss = fit_head(head, features, labels)
    assert loss < 0.2
    logits = head(features)
    assert (logits.argmax(1) == labels).float().mean() > 0.98
    assert logits.shape == (200, 4)
    with pytest.raises(UsageError, match="one class an image"):
        fit_head(head, features, torch.ones(200, 4, dtype=torch.bool))


@pytest.mark.parametrize("probe", ["regression", "lars"])
@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_only_the_head_is_trained(probe: Any, pooling: Any, folder: Path) -> None:
    data = lit(48, 0)
    config = ImageFinetuneConfig(linear_probe=probe, pooling=pooling, steps=4, flip=0.0, drop_path=0.2)
    model = build(folder, config, data, *statistics(folder, data), seed=0)
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    loss, steps = train_classifier(model, data, config, 6.4, 0, CPU)
    assert np.isfinite(loss)
    assert steps == (4 if probe == "lars" else 0)
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    assert isinstance(model.head, nn.Linear), "batch norm is folded into it"
    assert not isinstance(model.encoder.norm, nn.Identity), "the features are those of the network as it is"


def test_a_probe_learns_is_saved_and_says_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    config = ImageFinetuneConfig(linear_probe="regression")
    result = finetune_images(folder, lit(64, 0), lit(32, 1), config=config, seeds=2, out=tmp_path / "out")
    first, second = result.arm("pretrained").runs
    assert first.metrics == second.metrics
    assert first.metrics["accuracy"] > 0.75, "of a network that was never trained"
    assert "knn_accuracy" in first.metrics
    assert finetune_images(folder, lit(64, 0), lit(32, 1), config=replace(config, metric="knn_accuracy"), seeds=1).metric == "knn_accuracy"
    guesses = load_classifier(tmp_path / "out" / "model", device="cpu").predict(list(lit(32, 1).images))
    assert np.mean([guess == ["left", "right"][label] for guess, label in zip(guesses, lit(32, 1).labels, strict=True)]) == first.metrics["accuracy"]


def test_neighbours_are_those_of_the_frozen_features(folder: Path) -> None:
    train, test = lit(64, 0), lit(32, 1)
    found = finetune_images(folder, train, test, config=ImageFinetuneConfig(linear_probe="regression"), seeds=1, baseline=False)
    mean, std = statistics(folder, train)
    vectors = [frozen_features(folder, data.images, mean, std) for data in (train, test)]
    labels = [torch.from_numpy(data.labels) for data in (train, test)]
    assert found.arms[0].runs[0].metrics["knn_accuracy"] == knn_accuracy(vectors[0], labels[0], vectors[1], labels[1])
    with pytest.raises(UsageError, match="no metric knn_accuracy"):
        finetune_images(folder, train, test, config=ImageFinetuneConfig(metric="knn_accuracy"), seeds=1)


def test_lars_lowers_the_loss(folder: Path) -> None:
    data = lit(64, 0)
    losses = []
    for steps in (1, 150):
        config = ImageFinetuneConfig(linear_probe="lars", steps=steps, batch=64, flip=0.0, crop_smallest=1.0)
        model = build(folder, config, data, *statistics(folder, data), seed=0)
        losses.append(train_classifier(model, data, config, config.rates[0], 0, CPU)[0])
    assert losses[1] < 0.6 * losses[0]
    assert (predict(model, data.images, config, CPU).argmax(1) == data.labels).mean() > 0.9


def test_the_rate_is_that_of_the_optimiser_unless_one_is_given() -> None:
    assert ImageFinetuneConfig().rates == (1e-3,)
    assert ImageFinetuneConfig(linear_probe="lars").rates == (6.4,)
    assert ImageFinetuneConfig(linear_probe="lars", learning_rate=0.5).rates == (0.5,)
    assert ImageFinetuneConfig(learning_rates=(1e-3, 1e-2)).rates == (1e-3, 1e-2)
    with pytest.raises(UsageError, match="--learning-rate is 0"):
        ImageFinetuneConfig(learning_rate=0.0)
