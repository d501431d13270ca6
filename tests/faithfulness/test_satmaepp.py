"""The numbered checks of SatMAE++'s specification: hand numbers, sizes, tables, gradients, and the released code's steps one by one."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.backbones.positions import sincos_1d
from headstart.backbones.vit_blocks import patchify
from headstart.core.errors import BadInput
from headstart.core.rng import Rng
from headstart.engine.config import OptimizerConfig
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.methods.mae.config import MAEConfig
from headstart.methods.mae.method import MAE
from headstart.methods.satmaepp.config import PRESETS, RGB_EPOCH, SENTINEL_EPOCH, SatMAEPPConfig
from headstart.methods.satmaepp.method import SatMAEPP
from headstart.methods.satmaepp.network import (
    GroupDecoder,
    MultiScaleHead,
    ResidualBlock,
    UpsampleBlock,
    cut_cells,
    group_loss,
    halved,
    join_cells,
)
from headstart.objectives.patches import random_split

B1 = (1370.19151926, 633.15169573)
"""Mean and deviation of Sentinel-2's first band in fMoW-Sentinel."""
OFFICIAL_GROUPS = ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))


def facts(bands: int = 10, size: int = 32, mean: float = 1000.0, std: float = 500.0) -> Any:
    """What a method reads of a store."""
    return SimpleNamespace(
        channels=bands, height=size, width=size, mean=np.full(bands, mean), std=np.full(bands, std), dtype=np.dtype(np.uint16), folder=None
    )


def method(bands: int = 10, seed: int = 0, **changes: Any) -> SatMAEPP:
    """Two layers of width 32 on images of 8 pixels: 4 places, 3 groups."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "image_size": 8, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "group_width": 8, "decoder_hidden_size": 32, "decoder_layers": 1,
        "decoder_heads": 2, "decoder_group_width": 8, "proj_ratio": 1,
    }  # fmt: skip
    return SatMAEPP(SatMAEPPConfig(**settings | changes), facts(bands))


def pixels(rows: int, bands: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(rows, bands, size, size, generator=torch.Generator().manual_seed(seed))


def draws(rows: int, step: int = 0) -> Rng:
    return Rng.at(0, step, torch.arange(rows))


def gradients(model: SatMAEPP, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("spatial", [False, True])
def test_01_tokens(spatial: bool) -> None:
    model = method(image_size=96, patch_size=8, spatial_mask=spatial)
    assert (model.tokens, model.seen) == (432, 108)
    keep = model.draw(draws(3))
    assert keep.shape == (3, 108)
    seen = ~model.hidden(keep)
    assert seen.shape == (3, 3, 144)
    assert int(seen.sum()) == 3 * 108
    if spatial:
        assert torch.equal(seen.sum(1).unique(), torch.tensor([0, 3]))  # a place shows all of its groups, or none
        assert seen[:, 0].sum(1).tolist() == [36, 36, 36]
        assert torch.equal(keep[:, :36] + 144, keep[:, 36:72])  # group by group
    else:
        assert 1 in seen.sum(1).unique()


@pytest.mark.parametrize(
    ("preset", "scales", "encoder", "decoder", "head"),
    [
        ("large", 3, 302_970_880, 26_073_728, 117_100),
        ("large", 2, 302_970_880, 26_073_728, 58_810),
        ("base", 3, 85_550_592, 25_942_656, 117_100),
        ("large-optical", 2, 303_099_904, 26_139_392, 5_379),
        ("large", 1, 302_970_880, 26_073_728, 0),
    ],
)
def test_02_parameters(preset: str, scales: int, encoder: int, decoder: int, head: int) -> None:
    settings = PRESETS[preset].method
    with torch.device("meta"):
        model = SatMAEPP(SatMAEPPConfig(**{**vars(settings), "scales": scales}), facts(3 if "optical" in preset else 10))
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder, model.head)]
    assert counts == [encoder, decoder, head]
    if preset == "large-optical":
        assert sum(counts) == 329_244_675


def test_03_cells_keep_bands_apart() -> None:
    image = torch.arange(32.0).view(1, 2, 4, 4)
    assert cut_cells(image, 2)[0, 0].flatten().tolist() == [0, 1, 4, 5, 16, 17, 20, 21]
    assert patchify(image, 2)[0, 0].tolist() == [0, 16, 1, 17, 4, 20, 5, 21]  # MAE's order
    images = pixels(2, 3, 12)
    assert torch.equal(join_cells(cut_cells(images, 4), 4, (3, 3)), images)


def test_04_scales_are_block_means() -> None:
    assert halved(torch.arange(16.0).view(1, 1, 4, 4)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    model = method()
    largest = pixels(2, 10, 32)
    levels = model.scales_of(largest)
    assert [level.shape[-1] for level in levels] == [8, 16, 32]
    torch.testing.assert_close(levels[0], F.avg_pool2d(largest, 4), rtol=0, atol=1e-6)
    bilinear = F.interpolate(largest, scale_factor=0.5, mode="bilinear")
    torch.testing.assert_close(levels[1], bilinear, rtol=0, atol=1e-6)
    torch.testing.assert_close(levels[0], F.interpolate(bilinear, scale_factor=0.5, mode="bilinear"), rtol=0, atol=1e-6)


def test_05_bands_are_clipped_at_two_deviations_and_become_bytes() -> None:
    torch.manual_seed(0)
    config = SatMAEPPConfig(image_size=8, groups=("1",), num_layers=1)
    model = SatMAEPP(config, facts(1, mean=B1[0], std=B1[1]))
    values = torch.tensor([1370.19, 0.0, 2000.0, 5000.0]).view(1, 1, 2, 2)
    torch.testing.assert_close(model.scaled(values) * 255, torch.tensor([127.0, 0.0, 190.0, 255.0]).view(1, 1, 2, 2), rtol=0, atol=1e-4)
    with pytest.raises(BadInput, match="the same value in every pixel of band 1"):
        SatMAEPP(config, facts(1, std=0.0))


def test_06_the_table_of_groups() -> None:
    wanted = [
        [0, 0, 0, 0, 1, 1, 1, 1],
        [0.841471, 0.099833, 0.01, 0.001, 0.540302, 0.995004, 0.99995, 1],
        [0.909297, 0.198669, 0.019999, 0.002, -0.416147, 0.980067, 0.9998, 0.999998],
    ]
    model = method()
    torch.testing.assert_close(model.encoder.channel_embed[0], torch.tensor(wanted), rtol=0, atol=1e-6)
    assert isinstance(model.decoder, GroupDecoder)
    torch.testing.assert_close(model.decoder.decoder_channel_embed[0].double(), sincos_1d(torch.arange(4), 8), rtol=0, atol=1e-6)
    table = model.decoder.positions()[0]
    assert torch.equal(table[0, 24:], model.decoder.decoder_channel_embed[0, 3])  # the class token's group is one of its own
    assert torch.equal(table[0, :24], torch.zeros(24))
    assert torch.equal(table[1 + 4 : 1 + 8, 24:], model.decoder.decoder_channel_embed[0, 1].expand(4, -1))


def test_07_group_loss_by_hand() -> None:
    errors = torch.tensor([[1.0, 2], [3, 4], [5, 6]]).T[None]  # [1, cells, bands]
    hidden = torch.tensor([[[True, False], [True, True]]])
    total = group_loss(errors, hidden, torch.tensor([0, 1, 0]), torch.tensor([0.5, 1.0, 0.5]))
    assert float(total / hidden.sum()) == pytest.approx(3.333333, abs=1e-6)


def test_07_groups_and_shares_of_the_official_bands() -> None:
    model = method()
    assert model.groups == OFFICIAL_GROUPS
    assert model.group_of_band.tolist() == [0, 0, 0, 1, 1, 1, 0, 1, 2, 2]
    assert model.band_share.tolist() == [0.25] * 8 + [0.5] * 2


def test_08_the_total() -> None:
    model = method()
    levels, keep = model.scales_of(pixels(2, 10, 32)), model.draw(draws(2))
    found = model.losses(levels, keep)
    parts = [float(found[name]) for name in ("pixel_loss", "scale_loss_2x", "scale_loss_4x")]
    assert float(found["loss"].detach()) == pytest.approx(0.6 * parts[0] + 0.4 * (0.5 * parts[1] + 0.5 * parts[2]), rel=1e-5)
    assert float(model.total(torch.tensor(0.5), [torch.tensor(0.2), torch.tensor(0.3)])) == pytest.approx(0.4)
    drawn = model.enlarge(model.predict(levels[0], keep))
    assert parts[1] == pytest.approx(float((drawn[0] - levels[1]).abs().mean().detach()), rel=1e-5)
    assert parts[2] == pytest.approx(float((drawn[1] - levels[2]).abs().mean().detach()), rel=1e-5)
    single = method(scales=1)
    found = single.losses([levels[0]], keep)
    assert float(found["loss"].detach()) == float(found["pixel_loss"])


def test_09_without_the_larger_scales_it_is_satmae_at_six_tenths() -> None:
    multi, single = method(scale_weight=0.0), method(scales=1)
    single.encoder.load_state_dict(multi.encoder.state_dict())
    single.decoder.load_state_dict(multi.decoder.state_dict())
    levels, keep = multi.scales_of(pixels(3, 10, 32)), multi.draw(draws(3))
    found = gradients(multi, multi.losses(levels, keep)["loss"])
    wanted = gradients(single, single.losses(levels[:1], keep)["loss"])
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], 0.6 * gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("normalise", [False, True])
def test_09_one_group_without_a_width_is_mae(normalise: bool) -> None:
    """The optical form has MAE's loss and gradients; one group of all bands gives the same numbers up to the order of pixels in a patch."""
    changes: dict[str, Any] = {"scales": 1, "scaling": "standard", "group_width": 0, "decoder_group_width": 0, "normalise_targets": normalise}
    grouped, optical = method(3, groups=("1,2,3",), **changes), method(3, **changes)
    assert grouped.encoder.positions((2, 2)).equal(optical.encoder.positions((2, 2)))
    state = grouped.official_state()
    renamed = {name.replace(".0.proj", ".proj").replace("decoder_pred.0.", "decoder_pred."): value for name, value in state.items()}
    to_pixel = torch.arange(48).view(3, 16).T.flatten()  # band last
    for name in ("decoder_pred.weight", "decoder_pred.bias"):
        renamed[name] = renamed[name][to_pixel]
    for part in (optical.encoder, optical.decoder):
        part.load_state_dict({name: renamed[name] for name in part.state_dict()})
    mae = MAE(MAEConfig(8, 4, 32, 2, 2, 32, 1, 2, normalise_targets=normalise), facts(3))
    mae.encoder.load_state_dict(optical.encoder.state_dict())
    mae.decoder.load_state_dict(optical.decoder.state_dict())
    images, split = pixels(3, 3, 8), random_split(torch.rand(3, 4, generator=torch.Generator().manual_seed(1)), 1)
    keep = split.keep
    wanted = gradients(optical, optical.losses([images], keep)["loss"])
    of_mae = mae.errors(images, split)[0].mean()
    of_mae.backward()
    for name, parameter in mae.named_parameters():
        torch.testing.assert_close(wanted[name], parameter.grad, rtol=1e-4, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")
    loss = grouped.losses([images], keep)["loss"]
    torch.testing.assert_close(loss, of_mae)
    torch.testing.assert_close(loss, optical.losses([images], keep)["loss"])
    found = gradients(grouped, loss)
    for name in ("encoder.cls_token", "encoder.blocks.0.attn.qkv.weight", "decoder.mask_token", "decoder.decoder_embed.weight"):
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found["encoder.patch_embed.0.proj.weight"], wanted["encoder.patch_embed.proj.weight"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found["decoder.decoder_pred.0.weight"][to_pixel], wanted["decoder.decoder_pred.weight"], rtol=1e-4, atol=1e-7)


def test_10_only_the_larger_scales_reach_seen_tokens_and_only_they_reach_the_blocks() -> None:
    model = method()
    levels, keep = model.scales_of(pixels(2, 10, 32)), model.draw(draws(2))
    cells = model.predict(levels[0], keep).detach().requires_grad_()
    hidden = model.hidden(keep)
    model.pixel_losses(cells, model.target(levels[0]), hidden).mean().backward()
    reached = cells.grad.abs().amax(-1) > 0  # [batch, cells, bands]
    assert torch.equal(reached, hidden.mT.index_select(2, model.group_of_band))
    assert all(p.grad is None for p in model.head.parameters())
    cells.grad = None
    sum(model.distance(drawn, level) for drawn, level in zip(model.enlarge(cells), levels[1:], strict=True)).backward()
    assert bool((cells.grad.abs().amax(-1) > 0).all())
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in model.head.parameters())


@pytest.mark.parametrize("quirk", [True, False])
def test_11_the_quirk_swaps_bands_3_and_6(quirk: bool) -> None:
    """The released code compares bands in the order of the groups with targets in their own: head 0 then learns band 3 in its fourth map."""
    model = method(scale_weight=0.0, official_quirks=quirk)
    levels = model.scales_of(pixels(4, 10, 32))
    keep = model.draw(draws(4))
    other = [levels[0].clone(), *levels[1:]]
    other[0][:, 3] += 0.5
    # The encoder sees the same image in both; the target alone differs.
    cells, hidden = model.predict(levels[0], keep), model.hidden(keep)
    losses = [model.pixel_losses(cells, model.target(images[0]), hidden).mean() for images in (levels, other)]
    heads = [gradients_of_heads(model, loss) for loss in losses]
    changed = [bool((a - b).abs().amax() > 1e-9) for a, b in zip(*heads, strict=True)]
    assert changed == ([True, False, False] if quirk else [False, True, False])
    if quirk:
        maps = (heads[0][0] - heads[1][0]).view(4, 16, -1).abs().amax((1, 2)) > 1e-9
        assert maps.tolist() == [False, False, False, True]


def gradients_of_heads(model: SatMAEPP, loss: Tensor) -> list[Tensor]:
    """Of the last layer of each group, [bands * pixels, dim]."""
    assert isinstance(model.decoder, GroupDecoder)
    weights = [model.decoder.get_submodule(f"decoder_pred.{i}").weight for i in range(3)]
    return list(torch.autograd.grad(loss, weights, retain_graph=True))


def test_12_blocks() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(5)
    x = pixels(2, 5, 6)
    assert not torch.equal(block(x), x)
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    assert torch.equal(block(x), x)
    features, image = UpsampleBlock(12, 3)(pixels(2, 12, 6))
    assert (features.shape, image.shape) == ((2, 12, 12, 12), (2, 3, 12, 12))


def test_12_block_as_the_released_code_computes_it() -> None:
    torch.manual_seed(0)
    block = UpsampleBlock(6, 2)
    for norm in (block.up_norm, block.res_norm):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        return weight[:, None, None] * centred / (centred.pow(2).mean(1, keepdim=True) + 1e-6).sqrt() + bias[:, None, None]

    x = pixels(2, 6, 5)
    up = F.conv_transpose2d(x, block.up_conv.weight, block.up_conv.bias, stride=2, padding=1)
    up = norm(up, block.up_norm.weight, block.up_norm.bias)
    up = torch.where(up > 0, up, 0.01 * up)
    inner = F.conv2d(up, block.res_block.conv1.weight, block.res_block.conv1.bias, padding=1).clamp(min=0)
    inner = F.conv2d(inner, block.res_block.conv2.weight, block.res_block.conv2.bias, padding=1) * 0.5 + up
    wanted = norm(inner, block.res_norm.weight, block.res_norm.bias)
    features, image = block(x)
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(image, F.conv2d(wanted, block.proj_out.weight, block.proj_out.bias, padding=1), rtol=1e-4, atol=1e-5)


def test_12_first_weights_of_the_blocks() -> None:
    """Convolutions Xavier over all nine taps, biases 0; the transposed one and the 1x1 one as PyTorch begins them."""
    torch.manual_seed(0)
    block = UpsampleBlock(24, 24)
    for conv in (block.res_block.conv1, block.res_block.conv2, block.proj_out):
        bound = math.sqrt(6 / (2 * 24 * 9))
        assert float(conv.weight.abs().max().detach()) == pytest.approx(bound, rel=0.01)
        assert bool((conv.bias == 0).all())
    assert float(block.up_conv.weight.abs().max().detach()) == pytest.approx(1 / math.sqrt(24 * 16), rel=0.01)
    assert float(block.up_conv.bias.abs().max().detach()) > 0
    first = MultiScaleHead(24, 4, ("up_block",)).proj_up_conv
    assert float(first.weight.abs().max().detach()) == pytest.approx(1 / math.sqrt(24), rel=0.01)
    assert float(first.bias.abs().max().detach()) > 0


def test_13_hidden_share_of_a_group_fluctuates() -> None:
    model = method(image_size=96, patch_size=8, num_layers=1)
    hidden = model.hidden(model.draw(draws(2000)))
    assert torch.equal(hidden.sum((1, 2)), torch.full((2000,), 324))
    share = hidden.float().mean(2)  # [images, groups]
    deviation = math.sqrt(0.75 * 0.25 / 144 * (432 - 144) / 431)
    assert deviation == pytest.approx(0.0295, abs=1e-4)
    assert share.mean(0).tolist() == pytest.approx([0.75] * 3, abs=4 * deviation / math.sqrt(2000))
    assert share.std(0).tolist() == pytest.approx([deviation] * 3, rel=0.15)


def test_14_tokens_of_equal_content_tell_group_and_place_alone() -> None:
    model = method()
    places = model.encoder.positions((2, 2))
    assert places is not None
    table = places[0].view(3, 4, 32)  # [groups, cells, dim]
    assert torch.equal(table[:, :, :24], table[:1, :, :24].expand(3, -1, -1))
    assert torch.equal(table[:, :, 24:], table[:, :1, 24:].expand(-1, 4, -1))
    assert not torch.equal(table[0], table[1])


def test_15_the_class_token_has_neither_place_nor_group() -> None:
    model = method()
    first: list[Tensor] = []
    model.encoder.get_submodule("blocks.0").register_forward_pre_hook(lambda module, inputs: first.append(inputs[0]))
    model.encoder(pixels(2, 10, 8), model.draw(draws(2)))
    assert torch.equal(first[0][:, :1], model.encoder.cls_token.expand(2, -1, -1))
    assert torch.equal(model.encoder.pos_embed[:, 0], torch.zeros(1, 24))


def official_loss(model: SatMAEPP, images: Tensor, larger: list[Tensor], noise: Tensor) -> Tensor:
    """The loss as models_mae_group_channels.py computes it, step by step: every token embedded, shuffled, unshuffled, then the mask."""
    weights = dict(model.encoder.named_parameters()) | dict(model.decoder.named_parameters())
    n, groups, cells = len(images), 3, model.cells
    embedded = [
        F.conv2d(images[:, list(group)], weights[f"patch_embed.{i}.proj.weight"], weights[f"patch_embed.{i}.proj.bias"], stride=4).flatten(2).mT
        for i, group in enumerate(OFFICIAL_GROUPS)
    ]
    place, group = model.encoder.pos_embed[:, None, 1:], model.encoder.channel_embed[:, :, None]
    x = torch.stack(embedded, dim=1) + torch.cat([place.expand(-1, groups, -1, -1), group.expand(-1, -1, cells, -1)], dim=-1)
    order = noise.argsort(1)
    restore = order.argsort(1)
    if model.config.spatial_mask:
        x, kept = x.transpose(1, 2), int(cells * 0.25)  # [n, cells, groups, dim]
        x = x.gather(1, order[:, :kept, None, None].expand(-1, -1, groups, 32)).transpose(1, 2).reshape(n, -1, 32)
    else:
        kept = int(groups * cells * 0.25)
        x = x.reshape(n, -1, 32).gather(1, order[:, :kept, None].expand(-1, -1, 32))
    mask = torch.ones_like(noise)
    mask[:, :kept] = 0
    mask = mask.gather(1, restore)
    mask = mask.repeat(1, groups).view(n, groups, cells) if model.config.spatial_mask else mask.view(n, groups, cells)

    x = torch.cat([weights["cls_token"].expand(n, -1, -1), x], dim=1)
    for block in model.encoder.blocks:
        x = block(x)
    x = model.decoder.decoder_embed(model.encoder.norm(x))
    token, seen = weights["mask_token"], x[:, 1:]
    if model.config.spatial_mask:
        seen = seen.view(n, groups, kept, 32).transpose(1, 2).flatten(2)  # [n, kept, groups * dim]
        whole = torch.cat([seen, token.repeat(n, cells - kept, groups)], dim=1).gather(1, restore[..., None].expand(-1, -1, groups * 32))
        whole = whole.view(n, cells, groups, 32).transpose(1, 2).reshape(n, -1, 32)
    else:
        whole = torch.cat([seen, token.repeat(n, groups * cells - kept, 1)], dim=1).gather(1, restore[..., None].expand(-1, -1, 32))
    decoder = model.decoder
    assert isinstance(decoder, GroupDecoder)
    table = torch.cat([decoder.decoder_pos_embed[0, 1:].repeat(3, 1), decoder.decoder_channel_embed[0, :3].repeat_interleave(cells, 0)], dim=1)
    first = torch.cat([decoder.decoder_pos_embed[0, :1], decoder.decoder_channel_embed[0, 3:]], dim=1)
    x = torch.cat([x[:, :1], whole], dim=1) + torch.cat([first, table])
    for block in decoder.decoder_blocks:
        x = block(x)
    x = decoder.decoder_norm(x)[:, 1:].view(n, groups, cells, 32)
    pred = torch.cat(
        [head(x[:, i]).view(n, cells, -1, 16).transpose(1, 2) for i, head in enumerate(decoder.decoder_pred)], dim=1
    )  # [n, bands in the order of the groups, cells, pixels]
    if not model.config.official_quirks:
        pred = pred[:, torch.tensor([0, 1, 2, 4, 5, 6, 3, 7, 8, 9])]
    target = images.view(n, 10, 2, 4, 2, 4).permute(0, 1, 2, 4, 3, 5).reshape(n, 10, cells, 16)
    errors = (pred - target).square().mean(-1)
    pixel = sum((errors[:, list(group)].mean(1) * mask[:, i]).sum() for i, group in enumerate(OFFICIAL_GROUPS)) / mask.sum()
    head = model.head
    image = pred.view(n, 10, 2, 2, 4, 4).permute(0, 1, 2, 4, 3, 5).reshape(n, 10, 8, 8)
    features = head.proj_up_norm(F.gelu(head.proj_up_conv(image)))
    features, twice = head.up_block1(features)
    _, four_times = head.up_block2(features)
    return 0.6 * pixel + 0.4 * (0.5 * F.l1_loss(twice, larger[0]) + 0.5 * F.l1_loss(four_times, larger[1]))


@pytest.mark.parametrize(("spatial", "quirks"), [(False, True), (True, True), (False, False)])
def test_equal_to_the_released_steps_in_loss_and_gradient(spatial: bool, quirks: bool) -> None:
    model = method(spatial_mask=spatial, official_quirks=quirks)
    levels = model.scales_of(pixels(4, 10, 32))
    noise = torch.rand(4, 4 if spatial else 12, generator=torch.Generator().manual_seed(3))
    loss = official_loss(model, levels[0], levels[1:], noise)
    wanted = gradients(model, loss)
    keep = random_split(noise, 1 if spatial else 3).keep
    if spatial:
        keep = (torch.arange(3)[:, None] * 4 + keep[:, None]).flatten(1)
    found_loss = model.losses(levels, keep)["loss"]
    torch.testing.assert_close(found_loss, loss, rtol=1e-5, atol=1e-6)
    found = gradients(model, found_loss)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def official_names(groups: int = 3, optical: bool = False) -> set[str]:
    """Of a released pre-training checkpoint of the test's depth."""
    block = [f"{part}.{kind}" for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")]
    pairs = ["norm", "decoder_embed", "decoder_norm", "proj_up_conv", "proj_up_norm"]
    of_groups = [name for i in range(groups) for name in (f"patch_embed.{i}.proj", f"decoder_pred.{i}")]
    pairs += ["patch_embed.proj", "decoder_pred"] if optical else of_groups
    of_block = ["up_conv", "up_norm", "res_block.conv1", "res_block.conv2", "res_norm", "proj_out"]
    pairs += [f"{block}.{part}" for block in (["up_block"] if optical else ["up_block1", "up_block2"]) for part in of_block]
    names = {f"{name}.{kind}" for name in pairs for kind in ("weight", "bias")}
    names |= {f"blocks.{i}.{name}" for i in range(2) for name in block} | {f"decoder_blocks.0.{name}" for name in block}
    names |= {"cls_token", "mask_token", "pos_embed", "decoder_pos_embed"}
    return names if optical else names | {"channel_embed", "decoder_channel_embed"}


def test_official_names() -> None:
    assert set(method().official_state()) == official_names()
    assert set(method(3, scales=2).official_state()) == official_names(optical=True)
    shapes = {name: list(value.shape) for name, value in method().official_state().items()}
    assert shapes["pos_embed"] == [1, 5, 24]
    assert shapes["decoder_channel_embed"] == [1, 4, 8]
    assert shapes["patch_embed.2.proj.weight"] == [32, 2, 4, 4]
    assert shapes["decoder_pred.2.weight"] == [32, 32]


@pytest.mark.parametrize("preset", ["base", "large", "base-optical", "large-optical"])
def test_presets_are_the_specifications_table(preset: str) -> None:
    optical = preset.endswith("optical")
    names = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
    groups = ("B2,B3,B4,B8", "B5,B6,B7,B8A", "B11,B12")
    bands: dict[str, Any] = {} if optical else {"band_names": names, "groups": groups, "group_width": 256, "decoder_group_width": 128}
    wanted = SatMAEPPConfig(
        224 if optical else 96, 16 if optical else 8, *((1024, 24, 16) if "large" in preset else (768, 12, 12)), decoder_hidden_size=512,
        decoder_layers=8, decoder_heads=16, scaling="auto", mask_ratio=0.75, spatial_mask=False, scales=2 if optical else 3, upsampler="conv",
        proj_ratio=4, scale_loss="l1", pixel_weight=0.6, scale_weight=0.4, normalise_targets=False, crop_smallest=0.2 if optical else 0.6,
        flip=0.5, official_quirks=False, **bands,
    )  # fmt: skip
    assert PRESETS[preset].method == wanted
    assert wanted.factor == (2 if optical else 4)


def test_recipe() -> None:
    """8e-4 after 20 of 50 epochs, half of it after 35; AdamW (.9, .95), weight decay .05, no clipping."""
    preset = PRESETS["large"]
    schedule, optimizer = ScheduleConfig(**preset.schedule), OptimizerConfig(**preset.optimizer)
    rates = [optimizer.learning_rate * multiplier(epoch * SENTINEL_EPOCH, preset.steps or 0, schedule) for epoch in (0, 10, 20, 35)]
    assert rates == pytest.approx([0, 4e-4, 8e-4, 4e-4], rel=1e-2)
    assert optimizer.learning_rate == pytest.approx(1e-4 * preset.batch / 256)
    assert (optimizer.beta1, optimizer.beta2, optimizer.weight_decay, optimizer.clip_norm) == (0.9, 0.95, 0.05, None)


def test_recipe_of_the_optical_form() -> None:
    """7e-4 after 20 of 800 epochs of batch 16,384, half of it in the middle of what is left; weight decay .3."""
    preset = PRESETS["large-optical"]
    schedule, optimizer = ScheduleConfig(**preset.schedule), OptimizerConfig(**preset.optimizer)
    rates = [optimizer.learning_rate * multiplier(epoch * RGB_EPOCH, preset.steps or 0, schedule) for epoch in (0, 10, 20, 410)]
    assert rates == pytest.approx([0, 3.5e-4, 7e-4, 3.5e-4], rel=1e-2)
    assert (optimizer.beta1, optimizer.beta2, optimizer.weight_decay, optimizer.clip_norm, preset.batch) == (0.9, 0.95, 0.3, None, 16384)
