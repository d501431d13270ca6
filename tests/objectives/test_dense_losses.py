"""Losses and counts of dense tasks, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from headstart.objectives.dense_losses import confusion, regression_loss, regression_metrics, regression_sums, segmentation_loss, segmentation_metrics
from tests.no_waiting import NoWaiting


def test_segmentation_scores_the_pixels_that_have_a_class() -> None:
    logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    classes = torch.tensor([[[0, 2], [-1, 1]]])
    mean, pixels = segmentation_loss(logits, classes)
    assert (float(mean.detach()), int(pixels)) == (pytest.approx(math.log(3)), 3)
    mean.backward()
    assert logits.grad is not None
    assert logits.grad[0, :, 1, 0].tolist() == [0, 0, 0]
    nothing = segmentation_loss(logits, torch.full_like(classes, -1))
    assert (float(nothing.mean.detach()), int(nothing.pixels)) == (0, 0)


def test_intersection_over_union() -> None:
    truth, said = torch.tensor([0, 0, 0, 1, 1, -1]), torch.tensor([0, 0, 1, 1, 2, 2])
    counts = confusion(said, truth, 4)
    assert counts.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    found = segmentation_metrics(counts)
    assert found["miou"] == pytest.approx((2 / 3 + 1 / 3 + 0) / 3), "class 2 was said and never true; class 3 is nowhere"
    assert found["pixel_accuracy"] == pytest.approx(3 / 5)
    assert found["mean_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_reversed_huber() -> None:
    """Errors 1, 4 and 10: l1 up to 2, a fifth of the largest; above (e^2 + 4) / 4."""
    truth = torch.tensor([1.0, 4.0, 10.0, torch.nan]).view(1, 1, 2, 2)
    zero = torch.zeros(1, 1, 2, 2)
    assert float(regression_loss(zero, truth, "berhu").mean) == pytest.approx((1 + 5 + 26) / 3)
    assert float(regression_loss(zero, truth, "l1").mean) == pytest.approx(5)
    assert float(regression_loss(zero, truth, "l2").mean) == pytest.approx(39)
    assert int(regression_loss(zero, truth, "l2").pixels) == 3


def test_errors_and_what_is_explained() -> None:
    truth = torch.tensor([0.0, 2.0, 4.0, torch.inf]).view(1, 1, 2, 2)
    said = torch.tensor([0.0, 2.0, 1.0, 7.0]).view(1, 1, 2, 2)
    found = regression_metrics(regression_sums(said, truth))
    assert found == pytest.approx({"rmse": math.sqrt(3), "mae": 1.0, "r2": 1 - 9 / 8})


def test_nothing_waits_until_all_is_scored() -> None:
    truth, classes = torch.tensor([0.0, 2.0, 4.0, torch.inf]).view(1, 1, 2, 2), torch.tensor([[[0, 2], [-1, 1]]])
    said = torch.zeros(1, 3, 2, 2)
    with NoWaiting():
        regression_sums(said[:, :1], truth)
        confusion(said.argmax(1), classes, 3)
        segmentation_loss(said, classes)
        for kind in ("l1", "l2", "berhu"):
            regression_loss(said[:, :1], truth, kind)
