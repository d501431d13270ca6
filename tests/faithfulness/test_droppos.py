"""The numbered checks of the DropPos specification: hand numbers, sizes, limits and names, each as the paper or the official code has it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.backbones.positions import sincos_2d
from headstart.backbones.vit_blocks import patchify, take
from headstart.core.errors import UsageError
from headstart.core.rng import Rng
from headstart.engine.config import OptimizerConfig
from headstart.engine.optim import build_optimizer
from headstart.engine.update import Update
from headstart.methods.droppos.config import PRESETS, DropPosConfig, seen_and_placed
from headstart.methods.droppos.method import Draw, DropPos
from headstart.methods.mae.config import MAEConfig
from headstart.methods.mae.method import MAE
from headstart.objectives.patches import Split
from headstart.objectives.positions import (
    affinities,
    official_distances,
    position_losses,
    renormalised,
    smoothing_map,
    squared_distances,
)
from tests.faithfulness.drop_positions import context, facts, method, pixels, small


def updates(model: DropPos, batch: dict[str, Tensor], steps: int, rate: float = 1e-3, cuts: tuple[tuple[int, int], ...] = ((0, 6),)) -> list[float]:
    """The losses of a few updates."""
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=rate, beta2=0.95))
    update = Update(model, optimizer, clip_norm=None, precision="fp32", device=torch.device("cpu"), seed=0, total_steps=max(steps, 10))
    losses = []
    for step in range(steps):
        batches = [{name: value[a:b] for name, value in batch.items()} for a, b in cuts]
        losses.append(float(update(batches, [torch.arange(a, b) for a, b in cuts], step, "train")["loss"]))
    return losses


@pytest.mark.parametrize(("side", "patch", "counts"), [(224, 16, (49, 12)), (28, 4, (12, 3)), (16, 4, (4, 1))])
def test_01_counts(side: int, patch: int, counts: tuple[int, int]) -> None:
    assert seen_and_placed(DropPosConfig(), (side // patch) ** 2) == counts
    draw = method(image_size=side, patch_size=patch).draw(context().rng)
    seen, placed = counts
    assert draw.keep.shape == (6, seen)
    assert draw.dropped.shape == (6, seen - placed)
    assert draw.hidden.shape == (6, (side // patch) ** 2 - seen)


THREE = squared_distances((3, 3))

ROW_0 = [0.520417, 0.191451, 0.009532, 0.191451, 0.070431, 0.003507, 0.009532, 0.003507, 0.000175]


def test_02_smoothing_map() -> None:
    smooth = smoothing_map(THREE, 1.0)
    torch.testing.assert_close(smooth[0], torch.tensor(ROW_0), rtol=0, atol=1e-6)
    near, corner = 0.122103, 0.044919
    torch.testing.assert_close(smooth[4], torch.tensor([corner, near, corner, near, 0.331911, near, corner, near, corner]), rtol=0, atol=1e-6)
    torch.testing.assert_close(smooth.sum(1), torch.ones(9), rtol=0, atol=1e-6)
    large = smoothing_map(squared_distances((14, 14)), 1.0)
    assert [float(large[0, 0]), float(large[100, 100])] == pytest.approx([0.520324, 0.318266], abs=1e-6)
    wide = smoothing_map(squared_distances((2, 5)), 1.0)
    assert float(wide[1, 6] / wide[1, 1]) == pytest.approx(math.exp(-1))  # one row below, in a grid of five columns


def test_03_official_quirk() -> None:
    quirk = smoothing_map(THREE, 1.0, official_quirks=True).sum(1)
    assert [float(quirk[0]), float(quirk[4])] == pytest.approx([0.895964, 1.225212], abs=1e-6)
    rows = smoothing_map(squared_distances((14, 14)), 1.0, official_quirks=True).sum(1)
    assert [float(rows.min()), float(rows.max())] == pytest.approx([0.886331, 1.109597], abs=1e-6)
    cut = smoothing_map(official_distances((14, 14), 16), 1.0, 196, official_quirks=True)
    assert cut.shape == (196, 196)
    assert [float(cut.sum(1).min()), float(cut.sum(1).max())] == pytest.approx([0.659233, 1.109597], abs=1e-6)
    assert set(cut[20].topk(5).indices.tolist()) == {20, 19, 21, 4, 36}
    model = method(image_size=32, patch_size=8, official_quirks=True)  # 4 x 4 places, an 8 x 8 map
    assert torch.equal(model.smoothing(context()), smoothing_map(squared_distances((8, 8)), 1.0, 16, True))
    with pytest.raises(UsageError, match="does not cover a grid of 7 x 7"):
        method(official_quirks=True)


def test_04_sigma_falls_in_stairs() -> None:
    distances = squared_distances((7, 7))
    model = method(sigma_epochs=800)
    for step, sigma in ((0, 1.0), (400, 0.5), (799, 0.00125)):
        found = model.smoothing(context(step, total=800))
        torch.testing.assert_close(found, smoothing_map(distances, sigma), rtol=0, atol=1e-7)
    assert float((model.smoothing(context(799, total=800)) - torch.eye(49)).abs().max()) < 1e-12
    stairs = [float(context(step, total=100).progress(20)) for step in (0, 4, 5, 9, 10, 99)]
    assert stairs == pytest.approx([0, 0, 0.05, 0.05, 0.1, 0.95])
    assert torch.equal(method(sigma=0.0).smoothing(context()), torch.eye(49))
    assert torch.equal(method(sigma_decay=False).smoothing(context(99)), smoothing_map(distances, 1.0))
    assert float(smoothing_map(distances, 2.0)[0, 0]) < float(smoothing_map(distances, 1.0)[0, 0])


def test_04_a_captured_step_reads_sigma_from_the_device() -> None:
    at = torch.tensor(50)
    ctx = dataclasses.replace(context(0), at=at)
    assert float(ctx.progress(20)) == 0.5
    at.fill_(99)
    assert float(ctx.progress(20)) == pytest.approx(0.95)


LABELS = torch.tensor([0, 3])

LOGITS = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]]).log()


def test_05_loss_by_hand() -> None:
    smooth = smoothing_map(squared_distances((2, 2)), 1.0)
    torch.testing.assert_close(smooth[0], torch.tensor([0.534447, 0.196612, 0.196612, 0.072329]), rtol=0, atol=1e-6)
    hard, soft = position_losses(LOGITS, LABELS, torch.eye(4)), position_losses(LOGITS, LABELS, smooth)
    assert float(hard.mean()) == pytest.approx(0.871485, abs=1e-6)
    assert soft.tolist() == pytest.approx([1.2626, 1.386294], abs=1e-6)
    assert float(soft.mean()) == pytest.approx(1.324447, abs=1e-6)
    weights = torch.tensor([0.6, 0.2])
    assert float((weights * soft).sum() / weights.sum()) == pytest.approx(1.293524, abs=1e-6)
    assert float((weights * hard).sum() / weights.sum()) == pytest.approx(0.61408, abs=1e-6)


class Fixed(DropPos):
    """Two dropped patches of one image on a 2 x 2 grid, with the predictions and affinities of the hand example."""

    def draw(self, rng: Rng) -> Draw:
        return Draw(torch.tensor([[1, 0, 3, 2]]), torch.zeros(1, 0, dtype=torch.int64), torch.tensor([[1, 2]]), None)

    def weights(self, patches: Tensor, draw: Draw) -> Tensor:
        return torch.tensor([[0.6, 0.2]])

    def name(self, features: Tensor, draw: Draw) -> Tensor:
        return LOGITS[None]


@pytest.mark.parametrize(("sigma", "expected"), [(1.0, 1.293524), (0.0, 0.61408)])
def test_05_the_method_divides_by_the_weights_of_the_batch(sigma: float, expected: float) -> None:
    model = Fixed(small(image_size=8, mask_ratio=0.0, drop_ratio=0.5, sigma=sigma), facts(size=8))
    scalars = model.loss(pixels(1, size=8), context(rows=1))
    assert float(scalars["loss"]) == pytest.approx(expected, abs=1e-6)
    assert float(scalars["weight"]) == pytest.approx(0.8)
    assert float(scalars["position_accuracy"]) == pytest.approx(0.6 / 0.8)  # the uniform guess is counted as place 0


def test_05_the_loss_of_micro_batches_is_that_of_the_whole() -> None:
    unsure_alone = {"multi_task": True, "conf_ignore": True, "sigma": 30.0, "sigma_decay": False}  # flat: an untrained network is sure of some
    for changes in ({}, {"multi_task": True, "pos_weight": 0.3}, {"attentive": False, "multi_task": True}, unsure_alone):
        whole = updates(method(**changes), pixels(), 2)
        assert updates(method(**changes), pixels(), 2, cuts=((0, 1), (1, 6))) == pytest.approx(whole, rel=1e-4)


def test_06_affinity() -> None:
    cosines = torch.tensor([0.9, 0.5, 0.1, -0.3])
    features = torch.stack([cosines, (1 - cosines**2).sqrt()], dim=1)[None]  # patches at these cosines to (1, 0)
    found = affinities(torch.tensor([[3.0, 0.0]]), features * torch.tensor([1.0, 2.0, 5.0, 0.1])[:, None])
    torch.testing.assert_close(found, torch.tensor([[0.981684, 0.01798, 0.000329, 0.000006]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(renormalised(found, torch.tensor([[0, 2]])), torch.tensor([[0.999665, 0.000335]]), rtol=0, atol=1e-6)


def test_06_affinities_are_those_of_the_whole_image_over_the_seen_patches() -> None:
    model = method()
    images, draw = model.plain(pixels()), model.draw(context().rng)
    features = model.encoder(images)
    whole = affinities(features[:, 0], features[:, 1:])
    seen = whole.gather(1, draw.keep)
    wanted = (seen / seen.sum(1, keepdim=True)).gather(1, draw.dropped)
    found = model.weights(patchify(images, 4), draw) / 12
    torch.testing.assert_close(found, wanted)
    assert bool((found.sum(1) < 1).all())  # those that kept their position take their part


class Constant(DropPos):
    """With weights that are given, as numbers."""

    given: Tensor

    def weights(self, patches: Tensor, draw: Draw) -> Tensor:
        return self.given


def test_06_no_gradient_flows_through_the_affinity() -> None:
    model = method()
    batch, ctx = pixels(), context()
    images = model.augmented(batch, ctx)
    torch.manual_seed(0)
    other = Constant(small(), facts())
    other.load_state_dict(model.state_dict())
    other.given = model.weights(patchify(images, 4), model.draw(ctx.rng)).detach().clone()
    for network in (model, other):
        network.loss(batch, ctx)["loss"].backward()
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name


@pytest.mark.parametrize(("side", "patch"), [(224, 16), (28, 4), (16, 4)])
@pytest.mark.parametrize("changes", [{}, {"sigma": 0.0, "attentive": False}, {"attentive": False}])
def test_07_a_dead_decoder_has_ln_l(side: int, patch: int, changes: dict[str, Any]) -> None:
    model = method(image_size=side, patch_size=patch, **changes)
    torch.nn.init.zeros_(model.decoder.decoder_pred.weight)
    places = (side // patch) ** 2
    loss = float(model.loss(pixels(2, size=side), context(rows=2))["loss"].detach())
    assert loss == pytest.approx(math.log(places), abs=1e-5)
    assert loss == pytest.approx({196: 5.278115, 49: 3.89182, 16: 2.772589}[places], abs=1e-5)


@pytest.mark.parametrize(
    ("places", "width", "seeds", "expected", "changes"),
    [
        (49, 64, 8, 4.46, {}),
        (196, 512, 2, 6.00, {"image_size": 224, "patch_size": 16, "decoder_hidden_size": 512, "decoder_layers": 2, "decoder_heads": 16}),
    ],
)
def test_07_the_first_loss_lies_above_ln_l(places: int, width: int, seeds: int, expected: float, changes: dict[str, Any]) -> None:
    """ln L + P / (P + L); the specification measured 4.39 for 49 places and a decoder 64 wide, 6.01 for the paper's 196 and 512."""
    assert math.log(places) + width / (width + places) == pytest.approx(expected, abs=0.005)
    side = changes.get("image_size", 28)
    models = (method(seed, sigma=0.0, attentive=False, **changes) for seed in range(seeds))
    scalars = [model.loss(pixels(seed=seed, size=side), context()) for seed, model in enumerate(models)]
    assert sum(float(s["loss"].detach()) for s in scalars) / seeds == pytest.approx(expected, abs=0.25)
    assert sum(float(s["position_accuracy"]) for s in scalars) / seeds < 3 / places


def test_08_only_dropped_positions_are_scored() -> None:
    """The decoder predicts nothing else, and what it would say of the others has no way into the loss."""
    model = method()
    batch, ctx = pixels(), context()
    draw = model.draw(ctx.rng)
    features = model.features(patchify(model.augmented(batch, ctx), 4), draw)
    everything = model.decoder(features)
    torch.testing.assert_close(model.decoder(features, draw.dropped), take(everything, draw.dropped))
    everything.retain_grad()
    labels, smooth = draw.labels(), model.smoothing(ctx)
    weights = model.weights(patchify(model.augmented(batch, ctx), 4), draw)
    loss = (weights * position_losses(take(everything, draw.dropped), labels, smooth)).sum() / weights.sum()
    torch.testing.assert_close(loss, model.loss(batch, ctx)["loss"])
    loss.backward()
    is_dropped = torch.zeros(6, 12, dtype=torch.bool).scatter(1, draw.dropped, True)
    assert bool((everything.grad[~is_dropped] == 0).all())
    assert bool((everything.grad[is_dropped] != 0).any())


class Shuffled(DropPos):
    """Shows the encoder the same patches in another order."""

    def draw(self, rng: Rng) -> Draw:
        draw = super().draw(rng)
        order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
        place = order.argsort()
        taken_from = None if draw.taken_from is None else place[draw.taken_from]
        return Draw(draw.keep[:, order], draw.hidden, place[draw.dropped], taken_from)


@pytest.mark.parametrize("changes", [{}, {"mask_token_type": "wrong_pos"}, {"multi_task": True}])
def test_09_the_order_of_the_seen_patches_does_not_matter(changes: dict[str, Any]) -> None:
    model = method(**changes)
    other = Shuffled(small(**changes), facts())
    other.load_state_dict(model.state_dict())
    assert not torch.equal(model.draw(context().rng).keep, other.draw(context().rng).keep)
    torch.testing.assert_close(model.loss(pixels(), context())["loss"], other.loss(pixels(), context())["loss"], rtol=0, atol=1e-5)


def test_10_nothing_dropped_or_seen_is_refused() -> None:
    with pytest.raises(UsageError, match="Of 49 patches 12 are seen, 12 of these with their position"):
        method(drop_ratio=0.0)
    with pytest.raises(UsageError, match="Of 4 patches 0 are seen"):
        method(image_size=8, mask_ratio=0.9)
    with pytest.raises(UsageError, match=r"mask-ratio is 1\.0"):
        method(mask_ratio=1.0)
    with pytest.raises(UsageError, match="nearest good sides are 28 or 32"):
        method(image_size=30)


def test_10_all_positions_dropped() -> None:
    model = method(drop_ratio=1.0)
    assert (model.kept, model.placed) == (12, 0)
    model.loss(pixels(), context())["loss"].backward()
    assert float(model.mask_pos_token.grad.abs().max()) > 0
    seen: list[Tensor] = []
    model.encoder.blocks[0].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    draw = model.draw(context().rng)
    patches = patchify(model.plain(pixels()), 4)
    model.features(patches, draw)
    torch.testing.assert_close(seen[0][:, 1:], model.encoder.embed_patches(patches, draw.keep) + model.mask_pos_token)
    assert torch.equal(seen[0][:, 0], model.encoder.cls_token[0].expand(6, -1))  # its position is the zero row


def test_10_a_nearly_blind_encoder_is_said(caplog: pytest.LogCaptureFixture) -> None:
    method(image_size=16, mask_ratio=0.85)
    assert "sees 2 of 16 patches: it is nearly blind" in caplog.text


@pytest.mark.parametrize("kind", ["param", "zeros", "wrong_pos"])
def test_11_what_stands_in_place_of_a_position(kind: str) -> None:
    model = method(mask_token_type=kind)
    batch, ctx = pixels(), context()
    model.loss(batch, ctx)["loss"].backward()
    assert ("mask_pos_token" in dict(model.named_parameters())) == (kind == "param")
    assert kind != "param" or float(model.mask_pos_token.grad.abs().max()) > 0
    assert not model.encoder.pos_embed.requires_grad
    seen: list[Tensor] = []
    model.encoder.blocks[0].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    patches, draw = patchify(model.plain(batch), 4), model.draw(ctx.rng)
    model.features(patches, draw)
    added = seen[0][:, 1:] - model.encoder.embed_patches(patches, draw.keep)
    table = model.encoder.pos_embed[0, 1:]
    for row in range(6):
        dropped = set(draw.dropped[row].tolist())
        for place in range(12):
            if place not in dropped:
                torch.testing.assert_close(added[row, place], table[draw.keep[row, place]], rtol=0, atol=1e-5)
        given = torch.stack([added[row, place] for place in sorted(dropped)])
        if kind == "param":
            torch.testing.assert_close(given, model.mask_pos_token[0].expand_as(given), rtol=0, atol=1e-5)
        elif kind == "zeros":
            assert float(given.detach().abs().max()) < 1e-5
        else:
            found = torch.cdist(given, table).argmin(1).tolist()
            true = draw.keep[row, sorted(dropped)].tolist()
            assert sorted(found) == sorted(true)  # the same positions
            assert found != true  # of other patches


@pytest.mark.slow
def test_12_constant_images_do_not_tell_their_places() -> None:
    """No leak: on images of one colour the accuracy on other such images stays at what elimination of the taken places allows."""
    model = method(image_size=16, attentive=False, sigma=0.0)
    colours = torch.randint(0, 256, (64, 3, 1, 1), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).expand(-1, -1, 16, 16)
    updates(model, {"images": colours[:32].contiguous()}, 150, rate=3e-3, cuts=((0, 32),))
    right = [float(model.evaluate({"images": colours[32:]}, context(step, rows=32))["position_accuracy"]) for step in range(20)]
    chance, draws = 1 / (16 - 1), 20 * 32 * 3
    assert sum(right) / 20 < chance + 4 * math.sqrt(chance * (1 - chance) / draws)


@pytest.mark.slow
def test_12_images_with_a_layout_tell_their_places() -> None:
    """The same recipe on images whose every cell has its own brightness: the check above could fail."""
    model = method(image_size=16, attentive=False, sigma=0.0)
    ramp = (torch.arange(16) * 15).view(4, 4).repeat_interleave(4, 0).repeat_interleave(4, 1).to(torch.uint8).expand(32, 3, -1, -1)
    model.crop_scale, model.flip = (1.0, 1.0), 0.0
    updates(model, {"images": ramp.contiguous()}, 150, rate=3e-3, cuts=((0, 32),))
    assert float(model.evaluate({"images": ramp}, context(rows=32))["position_accuracy"]) > 0.5


def test_13_positions_of_the_encoder() -> None:
    model = method()
    assert torch.equal(model.encoder.pos_embed, sincos_2d((7, 7), 48, class_row=True))
    table = sincos_2d((2, 2), 8, class_row=True)
    torch.testing.assert_close(table[0, 2], torch.tensor([0.841471, 0.01, 0.540302, 0.99995, 0, 0, 1, 1]), rtol=0, atol=1e-6)
    assert bool((table[0, 0] == 0).all())


def test_14_every_place_is_dropped_alike() -> None:
    model = method(image_size=224, patch_size=16)
    draws = [model.draw(Rng.at(0, step, torch.arange(500))).labels() for step in range(4)]
    rate = torch.zeros(196).index_add_(0, torch.cat(draws).flatten(), torch.ones(2000 * 37)) / 2000
    assert float((rate - 0.188776).abs().max()) < 0.035
    assert float(rate.mean()) == pytest.approx(37 / 196)


def test_14_the_two_draws_are_independent() -> None:
    """Which of the seen patches lose their position does not follow from the noise that chose the patches."""
    draw = method().draw(Rng.at(0, 0, torch.arange(2000)))
    rate = torch.zeros(12).index_add_(0, draw.dropped.flatten(), torch.ones(2000 * 9)) / 2000
    assert float((rate - 0.75).abs().max()) < 4 * math.sqrt(0.75 * 0.25 / 2000)


def test_15_multi_task_is_mae_on_the_same_patches() -> None:
    """Loss, every gradient of the encoder and of the decoder; with positions dropped they differ."""
    torch.manual_seed(0)
    mae = MAE(MAEConfig(28, 4, 48, 2, 3, 64, 1, 4), facts())
    model = method(multi_task=True)
    model.encoder.load_state_dict(mae.encoder.state_dict())
    model.pixel_decoder.load_state_dict(mae.decoder.state_dict())
    images = model.plain(pixels())
    patches, draw = patchify(images, 4), model.draw(context().rng)
    mae_loss = mae.errors(images, Split(draw.keep, draw.hidden))[0].mean()
    mae_loss.backward()
    wanted = gradients(mae.encoder, mae.decoder)
    none_dropped = draw._replace(dropped=draw.dropped[:, :0])
    for given, equal in ((none_dropped, True), (draw, False)):
        model.zero_grad()
        loss = model.pixel_loss(patches, given, model.features(patches, given))
        loss.backward()
        found = gradients(model.encoder, model.pixel_decoder)
        assert found.keys() == wanted.keys()
        if equal:
            assert float(loss.detach()) == pytest.approx(float(mae_loss.detach()), abs=1e-6)
            for name, gradient in wanted.items():
                torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-6, msg=name)
        else:
            assert float(loss.detach()) != pytest.approx(float(mae_loss.detach()), abs=1e-4)
            assert all(float((found[name] - gradient).abs().max()) > 1e-6 for name, gradient in wanted.items() if name.endswith("qkv.weight"))
    scalars = model.loss(pixels(), context())
    weighted = model.config.pos_weight * scalars["position_loss"] + scalars["pixel_loss"]
    torch.testing.assert_close(scalars["loss"].detach(), weighted)


def gradients(encoder: nn.Module, decoder: nn.Module) -> dict[str, torch.Tensor]:
    """Of every parameter that a loss reached."""
    both = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    return {name: parameter.grad.clone() for name, parameter in both.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(("preset", "trained"), [("small", 28_193_860), ("base", 92_448_196), ("large", 310_032_068)])
def test_16_parameters(preset: str, trained: int) -> None:
    with torch.device("meta"):
        model = DropPos(PRESETS[preset].method, facts(size=224))
    assert sum(p.numel() for p in model.parameters()) == trained
    if preset == "base":
        assert sum(p.numel() for p in model.encoder.parameters()) + model.mask_pos_token.numel() == 85_648_128
