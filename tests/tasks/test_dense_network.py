"""Heads for stereo, flow and depth: the numbers of naver/croco, hooks, losses, metrics, windows."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.backbones.croco import Binocular, CrossDecoder, DecoderConfig
from headstart.backbones.dpt import DPT, from_official
from headstart.backbones.vit import ViT, ViTConfig
from headstart.core.errors import UsageError
from headstart.interop.croco import DEFAULTS, to_official
from headstart.objectives.matching import depth_delta1, disparity_metrics, flow_metrics, matching_loss, pixel_losses
from headstart.tasks.dense import build, load_head
from headstart.tasks.dense_config import StereoConfig
from headstart.tasks.dense_network import (
    BilinearHead,
    DenseModel,
    DPTHead,
    LinearHead,
    OneView,
    Prediction,
    TwoView,
    choose_head,
    dpt_hooks,
    layer_id,
)
from headstart.tasks.dense_tasks import DenseTask, make_task
from headstart.tasks.tiling import tile_offsets, tiled


def wave(shape: tuple[int, ...] | torch.Size, at: float, scale: float = 0.2) -> Tensor:
    return (torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 0.7 + at) * scale).float().view(shape)


def networks(patch: int = 16, depth: int = 8) -> tuple[ViT, CrossDecoder]:
    torch.manual_seed(0)
    encoder = ViT(ViTConfig((2 * patch, 2 * patch), patch, 3, 32, 4, 2, class_token=False, positions="rope"))
    return encoder, CrossDecoder(32, DecoderConfig(16, depth, 2, positions="rope"), (2, 2), outputs=0)


# --- heads -----------------------------------------------------------------------------------------------------------------------------------------


def test_10_hooks() -> None:
    assert dpt_hooks(12, 8) == (10, 13, 16, 19)
    assert dpt_hooks(12, 12) == (11, 15, 19, 23)
    assert dpt_hooks(24, 12) == (23, 27, 31, 35)
    assert dpt_hooks(12, None) == (2, 5, 8, 11)
    assert dpt_hooks(24, None) == (5, 11, 17, 23)
    for depths in ((12, 6), (3, None), (0, 8)):
        with pytest.raises(UsageError, match="no usual choice"):
            dpt_hooks(*depths)
    with pytest.raises(UsageError, match="do not name four of 6 blocks"):
        DPTHead(32, 4, 16, 2, 1, hooks=(0, 1, 2, 6))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (96, 32)])
def test_10_predictions_have_the_size_of_the_image(size: tuple[int, int]) -> None:
    encoder, decoder = networks()
    model = TwoView(Binocular(encoder, decoder), DPTHead(32, 4, 16, 8, outputs=3), channels=2, with_confidence=True)
    with torch.no_grad():
        values, confidence = model(wave((1, 3, *size), 1), wave((1, 3, *size), 2))
        depth = OneView(encoder, DPTHead(32, 4, None, None, outputs=1))(wave((1, 3, *size), 1))
    assert confidence is not None
    assert (values.shape, confidence.shape) == ((1, 2, *size), (1, 1, *size))
    assert (depth.values.shape, depth.confidence) == ((1, 1, *size), None)


def test_a_grid_that_cannot_be_halved_is_refused_and_other_patches_are_resized() -> None:
    head = DPT([8] * 4, 1, (4, 4, 4, 4), 8, 4)
    with pytest.raises(UsageError, match="halves the grid of 3 x 2"):
        head([torch.zeros(1, 6, 8)] * 4, (3, 2))
    assert head([torch.zeros(1, 8, 8)] * 4, (4, 2), size=(32, 16)).shape == (1, 1, 32, 16)


def test_the_head_has_the_numbers_and_names_of_the_official_code() -> None:
    """models/dpt_block.py at commit d7de070, weights by formula; its state dict has modules twice, and one that nothing uses."""
    head = DPT([12, 12, 8, 8], 3, (8, 12, 16, 20), 16, 8)
    head.load_state_dict({name: wave(value.shape, place) for place, (name, value) in enumerate(sorted(head.state_dict().items()))})
    with torch.no_grad():
        found = head([wave((2, 24, dim), place, 1.0) for place, dim in enumerate((12, 12, 8, 8))], (4, 6))
    assert found.shape == (2, 3, 64, 96)
    assert found[1, :, 5, 7].tolist() == pytest.approx([-5.5251179, -3.6684389, -0.1644747], abs=1e-4)
    assert float(found.abs().mean()) == pytest.approx(0.7679936, abs=1e-5)
    state = {f"head.dpt.{name}": value for name, value in head.state_dict().items()}
    again = ("act_1_postprocess.0.weight", "scratch.layer1_rn.weight", "scratch.refinenet4.resConfUnit1.conv1.bias")
    beside = {f"head.dpt.{name}": torch.zeros(1) for name in again} | {"enc_norm.bias": torch.zeros(1)}
    assert set(from_official(state | beside)) == set(head.state_dict())


def dense(network: OneView | TwoView, shift: float = 0.0, scale: float = 1.0) -> DenseModel:
    values = torch.ones(network.channels)
    return DenseModel(network, torch.zeros(3), torch.ones(3), shift * values, scale * values)


def test_a_linear_head_draws_each_patch_from_its_token_and_starts_where_it_is_told() -> None:
    encoder, decoder = networks(patch=8, depth=2)
    head = LinearHead(16, 8, outputs=2)
    model = dense(TwoView(Binocular(encoder, decoder), head, channels=1, with_confidence=True), shift=1.0, scale=2.0)
    torch.nn.init.zeros_(head.linear.weight)
    model.start_at(torch.tensor([3.5]))
    values, confidence = model(wave((2, 3, 16, 24), 1), wave((2, 3, 16, 24), 2))
    assert torch.equal(values, torch.full((2, 1, 16, 24), 3.5))
    assert confidence is not None
    assert torch.equal(confidence, torch.zeros(2, 1, 16, 24)), "the start is of the values, not of the confidence"
    assert not any(name.endswith(("mask_token", "prediction_head.weight")) for name, _ in model.named_parameters())


def test_a_bilinear_head_enlarges_one_value_a_patch() -> None:
    head = BilinearHead(4, outputs=3)
    tokens = torch.randn(1, 6, 4)
    found = head([tokens], (2, 3), (10, 15))
    assert found.shape == (1, 3, 10, 15)
    torch.testing.assert_close(found[0, :, 2::5, 2::5].flatten(1).T, head.linear(tokens[0]))  # at the middle of a patch its own value


def test_large_networks_get_the_dense_head() -> None:
    chosen = [choose_head("auto", *depths) for depths in ((12, None), (3, None), (12, 12), (3, 3), (12, 6))]
    assert chosen == ["dpt", "linear", "dpt", "linear", "linear"]
    assert choose_head("auto", 12, 6, hooks=(1, 2, 3, 4)) == "dpt"
    assert choose_head("bilinear", 12, 12) == "bilinear"


def test_truth_is_standardised_as_predictions_are_scaled_back() -> None:
    encoder, _ = networks(patch=8)
    model = dense(OneView(encoder, LinearHead(32, 8, 1)), shift=5.0, scale=2.0)
    image = wave((1, 3, 16, 16), 1)
    torch.testing.assert_close(model.standardised(model(image).values), model.raw(image).values)


def test_layers_are_numbered_as_in_the_official_code() -> None:
    encoder, decoder = networks(depth=2)
    model = TwoView(Binocular(encoder, decoder), LinearHead(16, 16, 1), channels=1)
    numbers = {name: layer_id(name, 4, 2) for name, _ in model.named_parameters()}
    assert numbers["network.encoder.patch_embed.proj.weight"] == 0
    assert [numbers[f"network.encoder.blocks.{i}.norm1.weight"] for i in range(4)] == [1, 2, 3, 4]
    assert numbers["network.encoder.norm.weight"] == numbers["network.decoder.decoder_embed.bias"] == 4
    assert [numbers[f"network.decoder.dec_blocks.{i}.norm_y.weight"] for i in range(2)] == [5, 6]
    assert numbers["network.decoder.dec_norm.weight"] == 6
    assert numbers["head.linear.weight"] == 7
    assert layer_id("encoder.blocks.2.mlp.fc1.weight", 4, 0) == 3
    assert layer_id("head.dpt.head.0.weight", 4, 0) == 5


# --- losses and metrics ----------------------------------------------------------------------------------------------------------------------------


def test_11_losses_by_hand() -> None:
    error, confidence = torch.tensor(2.0), torch.tensor(0.5)
    assert float(pixel_losses(error, confidence, "laplacian")) == pytest.approx(1.713061, abs=1e-6)
    assert float(pixel_losses(error, confidence, "bounded")) == pytest.approx(1.723352, abs=1e-6)
    assert float(pixel_losses(error, confidence, "bounded2")) == pytest.approx(1.807924, abs=1e-6)
    assert float(pixel_losses(error, None, "l1")) == 2


def test_losses_and_metrics_have_the_numbers_of_the_official_code() -> None:
    """stereoflow/criterion.py; one pixel has no truth, and one of the flow moves too far."""
    truth, predicted, confidence = wave((2, 1, 4, 5), 1, 4.0), wave((2, 1, 4, 5), 2, 4.0), wave((2, 1, 4, 5), 3, 2.0)
    truth[0, 0, 1, 2] = torch.inf
    for kind, wanted in (("laplacian", 7.3481), ("bounded2", 3.4457), ("l1", 2.3918)):
        found = matching_loss(predicted, truth, confidence, kind)  # type: ignore[arg-type]
        assert (float(found.mean), int(found.pixels)) == (pytest.approx(wanted, abs=1e-4), 39)
    metrics = {name: float(value) for name, value in disparity_metrics(predicted, truth).items()}
    assert metrics == pytest.approx({"avgerr": 2.3880, "bad@0.5": 87.1053, "bad@1": 87.1053, "bad@2": 66.5789, "bad@3": 43.4211}, abs=1e-4)
    truth, predicted = wave((2, 2, 4, 5), 1, 4.0), wave((2, 2, 4, 5), 2, 4.0)
    truth[0, :, 1, 2], truth[1, :, 0, 0] = torch.inf, 2e4
    found = matching_loss(predicted, truth, confidence, "bounded")
    assert (float(found.mean), int(found.pixels)) == (pytest.approx(3.9540, abs=1e-4), 38)
    metrics = {name: float(value) for name, value in flow_metrics(predicted, truth).items()}
    assert metrics == pytest.approx({"EPE": 710.9197, "bad@1": 100, "bad@3": 100, "bad@5": 2.5}, rel=1e-5)


def test_pixels_without_truth_have_no_gradient_and_an_empty_batch_no_loss() -> None:
    predicted = torch.zeros(1, 1, 2, 2, requires_grad=True)
    matching_loss(predicted, torch.tensor([[[[1.0, torch.nan], [torch.inf, 3.0]]]])).mean.backward()
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [[[[-0.5, 0], [0, -0.5]]]]
    nothing = matching_loss(predicted, torch.full((1, 1, 2, 2), torch.nan))
    assert (float(nothing.mean.detach()), int(nothing.pixels)) == (0, 0)


def test_depth_counts_as_right_within_a_factor() -> None:
    truth = torch.tensor([[[[1.0, 2.0, 4.0, torch.nan]]], [[[1.0, 0.0, 1.0, 1.0]]]])
    predicted = torch.tensor([[[[1.2, 1.5, 4.0, 9.0]]], [[[1.3, 1.0, -1.0, 0.9]]]])
    assert float(depth_delta1(predicted, truth)) == pytest.approx((2 / 3 + 1 / 3) / 2)


# --- windows ---------------------------------------------------------------------------------------------------------------------------------------


def test_12_windows() -> None:
    assert tile_offsets(1000, 704, 0.7) == [0, 148, 296]
    assert tile_offsets(500, 352, 0.5) == [0, 148]
    assert tile_offsets(64, 64, 0.9) == [0]
    with pytest.raises(UsageError, match="does not fit"):
        tile_offsets(63, 64, 0.5)


@pytest.mark.parametrize("size", [(20, 30), (40, 16), (4, 6)])
def test_12_a_constant_stays_constant(size: tuple[int, int]) -> None:
    """Of an enlarged image the prediction is scaled back: 8 pixels there are 8 / factor here."""

    def predict(first: Tensor, second: Tensor) -> Prediction:
        assert first.shape[2:] == (8, 12)
        return Prediction(torch.full_like(first[:, :2], 8.0), torch.randn_like(first[:, :1]))

    torch.manual_seed(0)
    images = torch.rand(2, 3, *size)
    found = tiled(predict, [images, images], (8, 12), overlap=0.5)
    factor = max(8 / size[0], 12 / size[1], 1)
    assert found.shape == (2, 2, *size)
    torch.testing.assert_close(found, torch.full_like(found, 8 / factor), rtol=1e-5, atol=0)


def test_sure_windows_count_more() -> None:
    """Two windows that overlap by half: the sure one decides where both see."""

    def predict(first: Tensor, second: Tensor) -> Prediction:
        left = first[:, :1] < 4  # the window that begins at 0
        left = left[..., :1].expand_as(left)
        return Prediction(torch.where(left, 1.0, 5.0), torch.where(left, -3.0, 3.0))

    images = torch.arange(12.0).expand(1, 3, 8, 12)
    found = tiled(predict, [images, images], (8, 8), overlap=0.5)[0, 0, 0]
    assert found[:8].tolist() == pytest.approx([1.0] * 8, abs=1e-4)
    assert found[8:].tolist() == pytest.approx([5.0] * 4, abs=1e-4)


def official_stereo(file: Path, outputs: int = 2) -> dict[str, Tensor]:
    """A checkpoint in the form of stereoflow/train.py, of a narrow network with 8 decoder blocks; returns the head's weights."""
    sizes = {"enc_embed_dim": 16, "enc_depth": 2, "enc_num_heads": 2, "dec_embed_dim": 16, "dec_depth": 8, "dec_num_heads": 2}
    kwargs = {**DEFAULTS, **sizes, "img_size": (32, 64), "pos_embed": "RoPE100"}
    encoder = ViTConfig(image_size=(32, 64), hidden_size=16, num_layers=2, num_heads=2, class_token=False, positions="rope")
    decoder = DecoderConfig(hidden_size=16, num_layers=8, num_heads=2, positions="rope")
    torch.manual_seed(7)  # not that of `build`, whose fresh head would be the same
    state = to_official(Binocular(ViT(encoder), CrossDecoder(16, decoder, encoder.grid, outputs=0)))
    dpt = DPT([16] * 4, outputs).state_dict()
    state |= {f"head.dpt.{name}": value for name, value in dpt.items()}
    state["head.dpt.scratch.layer1_rn.weight"] = dpt["scratch.layer_rn.0.weight"]  # the official code has some modules under two names
    torch.save({"model": state, "args": argparse.Namespace(task="stereo", croco_args=kwargs, crop=[32, 64])}, file)
    return dpt


class OneRecord(list[Any]):
    """What a task asks of its training data."""

    def target_values(self) -> np.ndarray:
        return np.ones((1, 3), np.float32)


def stereo() -> DenseTask:
    data: Any = OneRecord([SimpleNamespace(target=torch.zeros(1, 2, 2))])
    return make_task("stereo", StereoConfig(), data)


def test_the_head_of_an_official_stereo_checkpoint_goes_on(tmp_path: Path) -> None:
    dpt = official_stereo(tmp_path / "crocostereo.pth")
    task = stereo()
    assert task.channels + task.with_confidence == 2, "as the official one has"
    for fresh in (False, True):
        model = build(tmp_path / "crocostereo.pth", task, task.config, torch.zeros(3), torch.ones(3), seed=0, fresh=fresh)
        assert isinstance(model.network, TwoView)
        assert isinstance(model.network.head, DPTHead), "what auto means for 10 blocks"
        found = model.network.head.dpt.state_dict()
        assert [torch.equal(found[name], value) for name, value in dpt.items()].count(True) == (0 if fresh else len(dpt))
        assert load_head(model, tmp_path / "crocostereo.pth", 2) == []


def test_a_head_with_other_outputs_is_taken_but_for_its_last_layer_and_that_is_said(tmp_path: Path) -> None:
    dpt = official_stereo(tmp_path / "crocostereo.pth", outputs=1)
    task = stereo()
    model = build(tmp_path / "crocostereo.pth", task, task.config, torch.zeros(3), torch.ones(3), seed=0)
    (note,) = load_head(model, tmp_path / "crocostereo.pth", 2)
    assert note == f"Of the head 2 of {len(dpt)} parameters start fresh, they have other shapes: head.4.weight, head.4.bias."
