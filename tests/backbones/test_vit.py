"""The vision transformer against hand numbers, timm's names and itself: positions, token dropping, grids, groups, rotary positions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from headstart.backbones.positions import Rotation, grid_coordinates, interpolate_positions, rope_2d, rotate, sincos_1d, sincos_2d
from headstart.backbones.vit import ViT, ViTConfig, adapt_channels, layer_scales
from headstart.backbones.vit_blocks import PatchEmbed, drop_path, grid_of, patchify, take, unpatchify
from headstart.core.errors import UsageError

SMALL = ViTConfig(image_size=(16, 24), patch_size=8, channels=3, hidden_size=32, num_layers=2, num_heads=2)  # 2 x 3 patches


def vit(seed: int = 0, **changes: object) -> ViT:
    torch.manual_seed(seed)
    network = ViT(SMALL.at(**changes))
    with torch.no_grad():  # away from the special values of the start: norms 1, biases 0
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def images(batch: int = 2, channels: int = 3, height: int = 16, width: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def test_sincos_has_the_column_first_and_a_class_row_of_zeros() -> None:
    table = sincos_2d((2, 2), 8, class_row=True)
    assert table.shape == (1, 5, 8)
    assert table[0, 0].tolist() == [0.0] * 8
    expected = torch.tensor([0.841471, 0.01, 0.540302, 0.99995, 0, 0, 1, 1])  # y = 0, x = 1
    torch.testing.assert_close(table[0, 2], expected, rtol=0, atol=5e-7)
    torch.testing.assert_close(sincos_2d((3, 2), 8)[0, 2], expected[[4, 5, 6, 7, 0, 1, 2, 3]], rtol=0, atol=5e-7)  # y = 1, x = 0 of two columns


def test_sincos_of_one_axis() -> None:
    rows = sincos_1d(torch.arange(3), 8)
    expected = [
        [0.841471, 0.099833, 0.01, 0.001, 0.540302, 0.995004, 0.99995, 1.0],
        [0.909297, 0.198669, 0.019999, 0.002, -0.416147, 0.980067, 0.9998, 0.999998],
    ]
    assert rows[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    torch.testing.assert_close(rows[1:].float(), torch.tensor(expected), rtol=0, atol=1e-6)


def test_positions_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        sincos_2d((2, 2), 10)
    with pytest.raises(UsageError, match="even"):
        sincos_1d(torch.arange(2), 7)
    with pytest.raises(UsageError, match="multiple of 4"):
        rope_2d(grid_coordinates((2, 2)), 6)


def test_rope_by_hand() -> None:
    """naver/croco: head width 8, v = 1..8 at row 1, column 2."""
    turned = rotate(torch.arange(1.0, 9)[None, None, None], rope_2d(torch.tensor([[1, 2]]), 8))
    expected = [-1.984111, 1.590675, 2.462378, 4.179683, -8.445816, 4.291045, 1.633459, 9.032549]
    torch.testing.assert_close(turned.flatten(), torch.tensor(expected), rtol=0, atol=2e-6)
    v = torch.randn(1, 1, 1, 8)
    assert torch.equal(rotate(v, rope_2d(torch.tensor([[0, 0]]), 8)), v)


def test_rope_sees_distances_only() -> None:
    q = torch.tensor([0.3, -1, 0.5, 2, 1, -0.2, 0.7, 0.1])
    k = torch.tensor([1, 0.4, -0.6, 0.2, 0.9, -1.1, 0.3, 0.5])

    def score(at_q: tuple[int, int], at_k: tuple[int, int]) -> float:
        turn = lambda v, at: rotate(v[None, None, None], rope_2d(torch.tensor([at]), 8)).flatten()  # noqa: E731
        return float(turn(q, at_q) @ turn(k, at_k))

    assert score((3, 5), (1, 2)) == pytest.approx(-1.701557, abs=2e-6)
    assert score((7, 9), (5, 6)) == pytest.approx(-1.701557, abs=2e-6)
    assert score((0, 0), (0, 0)) == pytest.approx(1.38, abs=2e-6)
    frequencies = rope_2d(torch.tensor([[1, 0]]), 64).cos.flatten()[:16].acos()
    torch.testing.assert_close(frequencies[[0, 1, 15]], torch.tensor([1, 0.749894, 0.013335]), rtol=0, atol=2e-5)


def test_interpolation_keeps_the_class_row_and_is_bicubic() -> None:
    table = torch.randn(1, 1 + 6, 8)
    wider = interpolate_positions(table, (2, 3), (4, 5))
    assert wider.shape == (1, 21, 8)
    assert torch.equal(wider[:, 0], table[:, 0])
    grid = table[:, 1:].view(1, 2, 3, 8).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (4, 5), mode="bicubic").permute(0, 2, 3, 1).reshape(1, 20, 8)
    torch.testing.assert_close(wider[:, 1:], expected)
    assert interpolate_positions(table, (2, 3), (2, 3)) is table
    assert interpolate_positions(table[:, 1:], (2, 3), (1, 1)).shape == (1, 1, 8)


def test_patches_are_row_by_row_and_channel_fastest() -> None:
    image = torch.arange(32.0).view(1, 2, 4, 4)
    patches = patchify(image, 2)
    assert patches[0, 0].tolist() == [0, 16, 1, 17, 4, 20, 5, 21]
    assert patches[0, 1, 0] == 2
    assert patches[0, 2, 0] == 8
    wide = images(channels=5)
    assert torch.equal(unpatchify(patchify(wide, 8), 8, (2, 3)), wide)


def test_the_patch_embedding_is_the_convolution_of_its_weights() -> None:
    embed = PatchEmbed(8, 3, 16)
    nn.init.normal_(embed.proj.bias)
    x = images()
    torch.testing.assert_close(embed(x), embed.proj(x).flatten(2).transpose(1, 2))


def test_sizes_that_the_patch_does_not_divide_are_refused_with_good_ones() -> None:
    with pytest.raises(UsageError, match=r"30 pixels high.*\n.*24 or 32"):
        grid_of(30, 32, 8)
    with pytest.raises(UsageError, match=r"5 pixels wide.*\n.*are 8"):
        grid_of(8, 5, 8)


def test_names_are_those_of_timm() -> None:
    names = set(ViT(SMALL).state_dict())
    block = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    modules = ["patch_embed.proj", "norm", *(f"blocks.{i}.{part}" for i in range(2) for part in block)]
    assert names == {"cls_token", "pos_embed"} | {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}


@pytest.mark.parametrize("positions", ["sincos", "learned", "rope", "none"])
@pytest.mark.parametrize("class_token", [True, False])
def test_dropped_tokens_leave_the_result_of_a_masked_attention(positions: str, class_token: bool) -> None:
    """What `keep` computes is what attention with a mask over all tokens gives at the kept ones."""
    network = vit(positions=positions, class_token=class_token)
    keep = torch.tensor([[4, 0, 2], [5, 1, 3]])
    x, first = images(), int(class_token)
    seen = torch.zeros(2, first + 6, dtype=torch.bool)
    seen[:, :first] = True
    seen.scatter_(1, keep + first, True)
    grid = network.config.grid
    places = network.positions(grid)
    tokens = network.embed(x) if places is None else network.embed(x) + places
    if class_token:
        row = network.cls_token if positions in ("rope", "none") else network.cls_token + network.pos_embed[:, :1]
        tokens = torch.cat([row.expand(2, -1, -1), tokens], dim=1)
    rotation = network.rotation(grid)
    for block in network.blocks:
        qkv = block.attn.qkv(block.norm1(tokens)).view(2, -1, 3, 2, 16).permute(2, 0, 3, 1, 4)
        q, k, v = qkv if rotation is None else (rotate(qkv[0], rotation), rotate(qkv[1], rotation), qkv[2])
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
        tokens = tokens + block.attn.proj(mixed.transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.norm2(tokens))
    wanted = take(network.norm(tokens)[:, first:], keep)
    found = network(x, keep)
    assert found.shape == (2, first + 3, 32)
    torch.testing.assert_close(found[:, first:], wanted, rtol=1e-4, atol=1e-5)


def test_dropped_patches_are_never_computed_on() -> None:
    """NaN in a patch that is not kept reaches neither features nor gradients."""
    network = vit().train()
    x = images(batch=1)
    x[:, :, 8:, 8:] = math.nan  # patches 4 and 5
    features = network(x, torch.tensor([[0, 3, 1]]))
    features.sum().backward()
    assert bool(features.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())


def test_rope_tokens_may_come_in_any_order_with_their_places() -> None:
    network = vit(positions="rope", class_token=False)
    order = torch.randperm(6)[None].expand(2, -1)
    torch.testing.assert_close(network(images(), order), take(network(images()), order), rtol=1e-4, atol=1e-5)


def test_other_image_sizes_get_interpolated_positions() -> None:
    network = vit(positions="learned")
    grown = vit(positions="learned", image_size=(32, 32))
    state = network.state_dict()
    state["pos_embed"] = interpolate_positions(network.pos_embed, (2, 3), (4, 4))
    grown.load_state_dict(state)
    x = images(height=32, width=32)
    torch.testing.assert_close(network(x), grown(x))
    assert vit(positions="rope")(x).shape == (2, 17, 32)


def test_positions_are_trained_only_when_learned() -> None:
    assert "pos_embed" not in dict(ViT(SMALL).named_parameters())
    assert "pos_embed" in dict(ViT(SMALL.at(positions="learned")).named_parameters())
    assert not any("pos_embed" in name for name in ViT(SMALL.at(positions="rope")).state_dict())


def test_pooling() -> None:
    network = vit()
    features = network(images())
    assert torch.equal(network.pool(features, "class"), features[:, 0])
    assert torch.equal(network.pool(features), features[:, 1:].mean(1))
    with pytest.raises(UsageError, match="no class token"):
        vit(class_token=False).pool(features, "class")


def test_groups_are_tokens_group_by_group_with_their_own_width() -> None:
    """SatMAE++: token (g, l) = patch_embed_g(x)[l] + (pos_embed[l], channel_embed[g])."""
    network = vit(channels=4, groups=((0, 2), (3, 1)), group_width=8)
    x = images(channels=4)
    places = network.positions((2, 3))
    assert places is not None
    assert places.shape == (1, 12, 32)
    torch.testing.assert_close(places[0, :6, :24], sincos_2d((2, 3), 24)[0])
    assert torch.equal(places[0, :6, :24], places[0, 6:, :24])  # equal across groups
    assert bool((places[0, 6:, 24:] == network.channel_embed[0, 1]).all())  # equal across cells
    torch.testing.assert_close(network.embed(x)[:, 6:], network.patch_embed[1].proj(x[:, [3, 1]]).flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)
    assert network(x, torch.tensor([[0, 11], [6, 2]])).shape == (2, 3, 32)
    assert "channel_embed" in network.state_dict()
    assert vit(channels=4, groups=((0, 1, 2, 3),), group_width=0)(x).shape == (2, 7, 32)
    seen: list[torch.Tensor] = []
    network.blocks[0].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    network(x)
    assert torch.equal(seen[0][:, :1], network.cls_token.expand(2, -1, -1))  # no place, no group


def test_groups_must_name_every_channel_once() -> None:
    with pytest.raises(UsageError, match="exactly one group"):
        vit(channels=3, groups=((0, 1), (1, 2)))
    with pytest.raises(UsageError, match="smaller group width"):
        vit(channels=3, groups=((0, 1), (2,)), group_width=32)


def test_drop_path_leaves_out_whole_rows_and_grows_with_depth() -> None:
    torch.manual_seed(0)
    out = drop_path(torch.ones(4000, 3, 2), 0.25)
    assert sorted(out.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert bool((out == out[:, :1, :1]).all())
    assert float((out[:, 0, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    network = ViT(SMALL.at(drop_path=0.2, num_layers=3))
    assert [block.drop_path for block in network.blocks] == pytest.approx([0, 0.1, 0.2])
    assert torch.equal(network.eval()(images()), network(images()))


def test_first_weights_are_those_of_mae() -> None:
    torch.manual_seed(0)
    network = ViT(ViTConfig(image_size=(64, 64), hidden_size=192, num_layers=1, num_heads=3))
    bound = math.sqrt(6 / (192 + 768))  # the patch convolution as the linear layer [192, 3 * 16 * 16]
    assert float(network.patch_embed.proj.weight.detach().abs().max()) == pytest.approx(bound, rel=1e-3)
    assert float(network.blocks[0].attn.qkv.weight.detach().abs().max()) == pytest.approx(math.sqrt(6 / (4 * 192)), rel=1e-3)
    assert float(network.cls_token.detach().std()) == pytest.approx(0.02, rel=0.2)
    assert all(bool((p == 0).all()) for name, p in network.named_parameters() if name.endswith("bias"))
    assert all(bool((p == 1).all()) for name, p in network.named_parameters() if "norm" in name and name.endswith("weight"))


@pytest.mark.parametrize(("old", "new"), [(3, 1), (3, 5), (1, 4), (13, 10)])
def test_a_picture_repeated_over_new_channels_gives_what_it_gave(old: int, new: int) -> None:
    weight = torch.randn(8, old, 4, 4)
    grey = torch.randn(1, 1, 4, 4)
    before = F.conv2d(grey.expand(-1, old, -1, -1), weight.mean(1, keepdim=True).expand_as(weight))
    after = F.conv2d(grey.expand(-1, new, -1, -1), adapt_channels(weight.mean(1, keepdim=True).expand_as(weight), new))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)
    assert adapt_channels(weight, old) is weight


def test_layer_decay_table() -> None:
    names = ["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.11.norm1.bias", "norm.weight"]
    names += ["fc_norm.weight", "head.bias"]
    scales = layer_scales(names, 12, 0.65)
    expected = [0.003697, 0.003697, 0.003697, 0.005688, 0.65, 1, 1, 1]
    assert list(scales.values()) == pytest.approx(expected, abs=1e-6)
    scales = layer_scales(names, 12, 0.75)
    assert list(scales.values()) == pytest.approx([0.023757, 0.023757, 0.023757, 0.031676, 0.75, 1, 1, 1], abs=1e-6)


def test_parameter_counts() -> None:
    with torch.device("meta"):
        network = ViT(ViTConfig())
    assert sum(p.numel() for p in network.parameters()) == 85_647_360  # base/16: trained; the positions are a buffer


def test_a_rotation_of_kept_tokens() -> None:
    rotation = rope_2d(grid_coordinates((2, 3)), 8)
    kept = rotation.take(torch.tensor([[1, 5], [0, 2]]))
    assert isinstance(kept, Rotation)
    assert kept.cos.shape == (2, 1, 2, 8)
    assert torch.equal(kept.sin[1, 0, 1], rotation.sin[2])
