"""The numbered checks of CroCo's specification, and the numbers of naver/croco itself."""

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

from headstart.backbones.croco import Binocular, CroCoNet, DecoderConfig
from headstart.backbones.positions import grid_coordinates, interpolate_positions, rope_2d, rotate
from headstart.backbones.vit import ViTConfig
from headstart.backbones.vit_blocks import patchify, take
from headstart.core.errors import BadInput
from headstart.core.rng import Rng
from headstart.engine.config import OptimizerConfig
from headstart.engine.flops import count_flops
from headstart.engine.method import Context
from headstart.engine.optim import build_optimizer
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.interop.croco import DEFAULTS, find_croco, from_official, parse_call, to_official
from headstart.methods.croco.config import PRESETS, V1_EPOCH, CroCoConfig, kept_patches
from headstart.methods.croco.method import CroCo
from headstart.objectives.patches import Split, normalise_patches, patch_errors

SPLIT = Split(
    torch.tensor([[0, 3, 4, 7, 11], [0, 2, 4, 5, 14]]),
    torch.tensor([[1, 2, 5, 6, 8, 9, 10, 12, 13, 14, 15], [1, 3, 6, 7, 8, 9, 10, 11, 12, 13, 15]]),
)
"""What the official mask generator drew with seed 0: seen and hidden patches."""


def facts(channels: int = 3, size: int = 32) -> Any:
    """What a method reads of a store."""
    return SimpleNamespace(channels=channels, height=size, width=size, mean=[120.0] * channels, std=[60.0] * channels, dtype=np.dtype(np.uint8))


def method(seed: int = 0, size: int = 32, **changes: Any) -> CroCo:
    settings: dict[str, Any] = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "mask_ratio": 0.7}
    settings |= {"decoder_hidden_size": 16, "decoder_layers": 2, "decoder_heads": 2}
    torch.manual_seed(seed)
    return CroCo(CroCoConfig(**settings | changes), facts(size=size))


def batch(rows: int = 6, size: int = 32, seed: int = 0) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {name: torch.randint(0, 256, (rows, 3, size, size), generator=draws, dtype=torch.uint8) for name in ("images", "second_images")}


def context(step: int = 0, rows: int = 6) -> Context:
    return Context(step, 100, "train", Rng.at(0, step, torch.arange(rows)), torch.device("cpu"))


def wave(shape: torch.Size | tuple[int, ...], at: float, scale: float = 0.2) -> Tensor:
    """Numbers that need no generator."""
    return (torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 0.7 + at) * scale).float().view(shape)


def official_state(network: CroCoNet) -> dict[str, Tensor]:
    """Weights by formula under the official names, those of the run of the official code that the numbers below are from."""
    return {
        name: value if name.endswith("pos_embed") else wave(value.shape, place) + ("norm" in name and name.endswith("weight"))
        for place, (name, value) in enumerate(sorted(to_official(network).items()))
    }


def network(positions: str, normalise_memory: bool = True) -> CroCoNet:
    """The small network of that run: 32 x 32 pixels, patch 8."""
    rope = positions == "rope"
    encoder = ViTConfig((32, 32), 8, 3, 32, 2, 2, class_token=False, positions="rope" if rope else "sincos")
    made = CroCoNet(encoder, DecoderConfig(16, 3, 2, positions="rope" if rope else "cosine", normalise_memory=normalise_memory))
    state = from_official(official_state(made))
    made.encoder.load_state_dict({name: state[name] for name in made.encoder.state_dict()})
    made.decoder.load_state_dict({name: state[name] for name in made.decoder.state_dict()})
    return made


@pytest.mark.parametrize(
    ("positions", "normalise_memory", "first", "size", "loss", "raw_loss_of_all"),
    [
        ("cosine", True, [-1.0248829, 0.4660375, 1.3881452], 0.7377021, 1.7450595, 1.8146987),
        ("cosine", False, [-0.9182867, -0.0283098, 1.1136328], 0.6981829, 1.7606648, 1.7619456),
        ("rope", True, [0.7433229, 0.2569765, -0.8406958], 0.5183313, 1.2710830, 1.4714454),
        ("rope", False, [0.2930335, 0.5223243, -0.2469499], 0.3683109, 1.1248616, 1.3109881),
    ],
)
def test_numbers_of_the_official_code(
    positions: str, normalise_memory: bool, first: list[float], size: float, loss: float, raw_loss_of_all: float
) -> None:
    """Predictions of models/croco.py and losses of models/criterion.py at commit d7de070, for the same weights, views and mask."""
    model = network(positions, normalise_memory)
    one, two = wave((2, 3, 32, 32), 1, 1.5), wave((2, 3, 32, 32), 2, 1.1) * wave((2, 3, 32, 32), 0.3, 1)
    patches = patchify(one, 8)
    with torch.no_grad():
        everywhere = model(patches, SPLIT.keep, two)
        hidden = model(patches, SPLIT.keep, two, SPLIT.rest)
    torch.testing.assert_close(everywhere[0, 0, :3], torch.tensor(first), rtol=0, atol=2e-6)
    assert float(everywhere.abs().mean()) == pytest.approx(size, abs=1e-6)
    torch.testing.assert_close(hidden, take(everywhere, SPLIT.rest), rtol=0, atol=1e-6)
    assert float(patch_errors(hidden, normalise_patches(take(patches, SPLIT.rest))).mean()) == pytest.approx(loss, abs=2e-6)
    assert float(patch_errors(everywhere, patches).mean()) == pytest.approx(raw_loss_of_all, abs=2e-6)


def test_01_masked_and_visible() -> None:
    assert [kept_patches(total, 0.9) for total in (196, 64, 16)] == [20, 7, 2]
    model = method(patch_size=4, mask_ratio=0.9)
    split = model.split(context(rows=400).rng)
    assert (split.keep.shape, split.rest.shape) == ((400, 7), (400, 57))
    assert torch.equal(torch.cat(split, dim=1).sort(1).values, torch.arange(64).expand(400, -1))
    rate = torch.zeros(64).index_add_(0, split.keep.flatten(), torch.ones(400 * 7)) / 400
    assert float((rate - 7 / 64).abs().max()) < 4 * math.sqrt(7 / 64 * 57 / 64 / 400)


def test_02_rotation_by_row_and_column() -> None:
    wanted = torch.tensor([-1.984111, 1.590675, 2.462378, 4.179683, -8.445816, 4.291045, 1.633459, 9.032549])
    values = torch.arange(1.0, 9.0)[None]
    torch.testing.assert_close(rotate(values, rope_2d(torch.tensor([[1, 2]]), 8))[0], wanted, rtol=0, atol=2e-6)
    assert torch.equal(rotate(values, rope_2d(torch.tensor([[0, 0]]), 8)), values)


def test_03_only_the_offset_between_places_counts() -> None:
    query, key = torch.tensor([[0.3, -1, 0.5, 2, 1, -0.2, 0.7, 0.1]]), torch.tensor([[1, 0.4, -0.6, 0.2, 0.9, -1.1, 0.3, 0.5]])

    def score(of_query: list[int], of_key: list[int]) -> float:
        return float((rotate(query, rope_2d(torch.tensor([of_query]), 8)) * rotate(key, rope_2d(torch.tensor([of_key]), 8))).sum())

    assert score([3, 5], [1, 2]) == pytest.approx(-1.701557, abs=2e-6)
    assert score([7, 9], [5, 6]) == pytest.approx(-1.701557, abs=2e-6)
    assert score([0, 0], [0, 0]) == pytest.approx(1.38, abs=1e-6)
    angles = torch.atan2(*reversed(rope_2d(torch.tensor([[1, 0]]), 64)))[0, :16]  # of place 1: the frequencies themselves
    assert angles[[0, 1, 15]].tolist() == pytest.approx([1, 0.749894, 0.013335], abs=1e-6)


@pytest.mark.parametrize(("preset", "trained"), [("v1-base", 120_076_288), ("v2-base", 200_269_824), ("v2-large", 417_918_720)])
def test_04_parameters(preset: str, trained: int) -> None:
    with torch.device("meta"):
        model = CroCo(PRESETS[preset].method, facts(size=224)).network
    assert sum(parameter.numel() for parameter in model.parameters()) == trained
    tables = {name: list(value.shape) for name, value in to_official(model).items() if name.endswith("pos_embed")}
    assert tables == ({"enc_pos_embed": [196, 768], "dec_pos_embed": [196, 512]} if preset == "v1-base" else {})


def test_flops_of_a_pair() -> None:
    """By the specification's counting rule a pair of the first paper costs 53.3 GFLOP forward, 34.9 of it the second view. Ours embeds and predicts a
    part of the patches only."""

    def blocks(depth: int, tokens: int, width: int) -> int:
        return depth * (24 * tokens * width**2 + 4 * tokens**2 * width)

    embedding = 2 * 196 * 768 * 768
    second = blocks(12, 196, 768) + embedding
    decoder = blocks(8, 196, 512) + 8 * (8 * 196 * 512**2 + 4 * 196**2 * 512)
    around = embedding + (20 + 196) * 2 * 768 * 512 + 2 * 196 * 512 * 768
    rule = second + blocks(12, 20, 768) + decoder + around
    assert second / 1e9 == pytest.approx(34.9, abs=0.3)
    assert rule / 1e9 == pytest.approx(53.3, abs=0.3)
    with torch.device("meta"):
        model = CroCo(PRESETS["v1-base"].method, facts(size=224)).eval()
        views = torch.empty(1, 3, 224, 224)
        split = Split(torch.empty(1, 20, dtype=torch.int64), torch.empty(1, 176, dtype=torch.int64))
    with torch.no_grad():
        counted = count_flops(lambda: model.errors(views, views, split))
    assert counted == pytest.approx(rule - embedding * 176 / 196 - 20 * 2 * 512 * 768, rel=1e-3)


@pytest.mark.slow
def test_05_another_second_view_changes_nothing_before_training_and_much_after() -> None:
    """Trained on pairs of equal views, where looking at the same place is all there is to learn."""
    torch.manual_seed(0)
    model = method(decoder_hidden_size=32, colour_jitter=0.0)
    coarse = torch.randint(0, 256, (256, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    images = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    split = model.split(context(rows=64).rng)
    views = model.middle_views({"images": images[:64], "second_images": images[:64]})

    def losses() -> tuple[float, float]:
        with torch.no_grad():
            return tuple(float(model.errors(views[0], second, split)[0].mean()) for second in (views[1], views[1].roll(1, 0)))  # type: ignore[return-value]

    true, other = losses()
    assert other == pytest.approx(true, rel=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.9, 0.95))
    for step in range(100):
        rows = torch.arange(64) + 64 * (step % 4)
        optimizer.zero_grad()
        model.loss({"images": images[rows], "second_images": images[rows]}, context(step, 64))["loss"].backward()
        optimizer.step()
    true, other = losses()
    assert 1 - true / other > 0.15
    with torch.no_grad():
        found = model.evaluate({"images": images[:64], "second_images": images[:64]}, context(rows=64))
    assert float(found["cross_view_gain"]) == pytest.approx(1 - true / other, abs=1e-5)
    assert float(found["geometry_gain"]) > 0.05


def test_06_the_second_view_counts_through_cross_attention_alone() -> None:
    paired, single = method(), method(seed=1, second_view="none")
    for block in paired.network.decoder.dec_blocks:
        for layer in (block.cross_attn.projv, block.cross_attn.proj):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    left = single.load_state_dict({name: value for name, value in paired.state_dict().items() if name in single.state_dict()})
    assert not left.missing_keys
    gone = {name.split(".", 4)[4].split(".")[0] for name in paired.state_dict().keys() - single.state_dict().keys()}
    assert gone == {"cross_attn", "norm2", "norm_y"}
    first, second = paired.middle_views(batch())
    split = paired.split(context().rng)
    losses = [paired.errors(first, second, split)[0], paired.errors(first, second.roll(1, 0), split)[0], single.errors(first, second, split)[0]]
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=0)
    torch.testing.assert_close(losses[2], losses[0], rtol=0, atol=1e-6)
    whole = method()
    whole.errors(first, second.requires_grad_(), split)[0].mean().backward()
    assert second.grad is not None
    assert float(second.grad.abs().max()) > 0


@pytest.mark.parametrize("normalise", [True, False])
def test_07_the_second_view_is_never_updated(normalise: bool) -> None:
    model = method(normalise_memory=normalise, decoder_layers=3)
    seen: list[Tensor] = []
    for block in model.network.decoder.dec_blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].clone()))
        assert isinstance(block.norm_y, torch.nn.LayerNorm if normalise else torch.nn.Identity)
    model.loss(batch(), context())
    assert len(seen) == 3
    assert all(torch.equal(memory, seen[0]) for memory in seen)


def test_08_only_hidden_patches_are_scored() -> None:
    model, everything = method(), method(score="all")
    first, second = model.middle_views(batch())
    split = model.split(context().rng)
    patches = patchify(first, 8)
    predicted = model.network(patches, split.keep, second)
    target = normalise_patches(patches)
    mask = torch.zeros(6, 16).scatter(1, split.rest, 1.0)

    def official(predictions: Tensor) -> Tensor:
        return ((predictions - target).square().mean(-1) * mask).sum() / mask.sum()

    loss = model.errors(first, second, split)[0].mean()
    torch.testing.assert_close(loss, official(predicted))
    torch.testing.assert_close(official(torch.where(mask[..., None].bool(), predicted, 1e3)), loss)
    torch.testing.assert_close(everything.errors(first, second, split)[0].mean(), patch_errors(predicted, target).mean())
    assert float(everything.errors(first, second, split)[0].mean().detach()) != pytest.approx(float(loss.detach()), rel=1e-4)


@pytest.mark.parametrize(("values", "score"), [(768, 0.9987), (192, 0.9948)])
def test_08_predicting_nothing_scores_about_1(values: int, score: float) -> None:
    target = normalise_patches(torch.rand(50, values, generator=torch.Generator().manual_seed(0)))
    assert float(patch_errors(torch.zeros_like(target), target).mean()) == pytest.approx(score, abs=5e-5)


def test_the_loss_starts_near_its_reference_line() -> None:
    """1 + 2P / (P + values per patch)."""
    starts = [float(method(seed, decoder_hidden_size=64).loss(batch(), context())["loss"].detach()) for seed in range(6)]
    assert sum(starts) / 6 == pytest.approx(1 + 2 * 64 / (64 + 192), abs=0.15)


def test_09_seen_patches_stay_in_raster_order() -> None:
    for part in method().split(context(rows=50).rng):
        assert bool((part.diff() > 0).all())


def test_09_shuffled_tokens_with_their_places_give_shuffled_outputs() -> None:
    model = network("rope")
    patches, second = patchify(wave((2, 3, 32, 32), 1, 1.5), 8), wave((2, 3, 32, 32), 2, 1.1)
    shuffle = torch.tensor([3, 0, 4, 2, 1])
    keep = SPLIT.keep[:, shuffle]
    with torch.no_grad():
        torch.testing.assert_close(
            model.encoder.from_patches(patches, keep), model.encoder.from_patches(patches, SPLIT.keep)[:, shuffle], rtol=0, atol=1e-5
        )
        torch.testing.assert_close(model(patches, keep, second), model(patches, SPLIT.keep, second), rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", ["v1-base", "v2-base", "v2-large"])
def test_13_the_rate_stops_half_way(preset: str) -> None:
    preset_ = PRESETS[preset]
    schedule, optimizer = ScheduleConfig(**preset_.schedule), OptimizerConfig(**preset_.optimizer)
    steps = preset_.steps or 0
    if preset == "v1-base":
        assert multiplier(20 * V1_EPOCH, steps, schedule) == pytest.approx(0.5)
        assert multiplier(steps, steps, schedule) == pytest.approx(0.541290, abs=1e-6)
    else:
        assert multiplier(steps, steps, schedule) == pytest.approx(0.5 * (1 + math.cos(math.pi * 113 / 238)))
    assert optimizer.learning_rate == pytest.approx({"v1-base": 1.5e-4, "v2-base": 1.5e-4, "v2-large": 3e-4}[preset])
    assert (optimizer.name, optimizer.beta1, optimizer.beta2, optimizer.weight_decay, optimizer.clip_norm) == ("adamw", 0.9, 0.95, 0.05, None)


@pytest.mark.parametrize(
    ("preset", "batch", "positions", "warmup", "length"),
    [
        ("v1-base", 256, "cosine", 40, 800),
        ("v2-base-small", 256, "rope", 12, 250),
        ("v2-base", 256, "rope", 12, 250),
        ("v2-large", 512, "rope", 12, 250),
    ],
)
def test_presets_are_the_specifications_table(preset: str, batch: int, positions: str, warmup: int, length: int) -> None:
    chosen = PRESETS[preset]
    sizes = {name: getattr(chosen.method, name) for name in ("hidden_size", "num_layers", "num_heads")}
    sizes |= {name: getattr(chosen.method, name) for name in ("decoder_hidden_size", "decoder_layers", "decoder_heads")}
    encoder = (1024, 24, 16) if preset == "v2-large" else (768, 12, 12)
    decoder = (512, 8, 16) if preset in ("v1-base", "v2-base-small") else (768, 12, 12)
    assert tuple(sizes.values()) == encoder + decoder
    wanted = CroCoConfig(
        **sizes, image_size=224, patch_size=16, positions=positions, mask_ratio=0.9, normalise_memory=True, normalise_targets=True,  # type: ignore[arg-type]
        score="masked", second_view="paired", colour_jitter=0.4,
    )  # fmt: skip
    assert chosen.method == wanted
    assert (chosen.batch, chosen.data) == (batch, {"size": 256})
    assert chosen.schedule == {"name": "cosine", "warmup_share": 2 * warmup / length, "run_share": 0.5}


def test_13_the_mask_token_decays_and_vectors_do_not() -> None:
    groups = build_optimizer(method(), OptimizerConfig(weight_decay=0.05)).param_groups
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decays["network.decoder.mask_token"] == decays["network.encoder.patch_embed.proj.weight"] == 0.05
    assert all(decay == 0 for name, decay in decays.items() if name.endswith("bias") or "norm" in name)


def test_14_views_are_cut_and_coloured_apart() -> None:
    """The place of a crop is read from images whose pixels say where they are; the colours from flat grey ones, whose brightness alone changes."""
    rows, size = 2000, 16
    model = method(image_size=8, size=size, patch_size=4, colour_jitter=0.0)
    model.mean, model.std = torch.zeros(3), torch.ones(3)
    where = (torch.arange(size)[:, None] * size + torch.arange(size)).to(torch.uint8).expand(rows, 3, -1, -1)
    corners = torch.stack([view[:, 0, 0, 0] for view in model.views({"images": where, "second_images": where}, context(rows=rows))])
    places = torch.stack([corners // size, corners % size])  # [axis, view, rows]
    assert places.amin(2).tolist() == [[0, 0], [0, 0]]
    assert places.amax(2).tolist() == [[8, 8], [8, 8]]
    for axis in range(2):
        assert abs(float(torch.corrcoef(places[axis])[0, 1])) < 0.07
    assert abs(float(torch.corrcoef(places[:, 0])[0, 1])) < 0.07
    jittered = method(image_size=8, size=8, patch_size=4)
    jittered.mean, jittered.std = torch.zeros(3), torch.ones(3)
    grey = torch.full((rows, 3, 8, 8), 100, dtype=torch.uint8)
    shine = torch.stack([view[:, 0, 0, 0] for view in jittered.views({"images": grey, "second_images": grey}, context(rows=rows))]) / 100
    assert (float(shine.min()), float(shine.max())) == pytest.approx((0.6, 1.4), abs=0.01)
    assert float(shine.mean()) == pytest.approx(1, abs=0.01)
    assert abs(float(torch.corrcoef(shine)[0, 1])) < 0.07


def test_15_both_views_in_one_batch_or_two() -> None:
    model = network("rope")
    one, two = wave((2, 3, 32, 32), 1), wave((2, 3, 32, 32), 2)
    with torch.no_grad():
        together = model.encoder(torch.cat([one, two]))
        torch.testing.assert_close(together, torch.cat([model.encoder(one), model.encoder(two)]), rtol=0, atol=1e-5)
        torch.testing.assert_close(model.encoder.outputs(one)[-1], model.encoder(one), rtol=0, atol=1e-6)
        outputs = Binocular(model.encoder, model.decoder)(one, two)
    assert [list(output.shape) for output in outputs] == [[2, 16, 32]] * 2 + [[2, 16, 16]] * 3


# --- files ------------------------------------------------------------------------------------------------------------------------------------------

KWARGS = {"img_size": 32, "patch_size": 8, "enc_embed_dim": 32, "enc_depth": 2, "enc_num_heads": 2, "dec_embed_dim": 16, "dec_depth": 3}
KWARGS |= {"dec_num_heads": 2, "mask_ratio": 0.9}


@pytest.mark.parametrize(("positions", "layout"), [("cosine", "kwargs"), ("rope", "kwargs"), ("rope", "args"), ("cosine", "args")])
def test_official_checkpoints_load(positions: str, layout: str, tmp_path: Path) -> None:
    """The second version's files have `croco_kwargs`; self-trained ones the text of a call in `args.model`, beside optimiser and epoch."""
    source = network(positions)
    kwargs = KWARGS | {"pos_embed": "cosine" if positions == "cosine" else "RoPE100"}
    found: dict[str, Any] = {"model": official_state(source)}
    if layout == "kwargs":
        found["croco_kwargs"] = kwargs
    else:
        call = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        found |= {"args": argparse.Namespace(model=f"CroCoNet({call})", lr=1e-3), "epoch": 3, "scaler": {"scale": 1.0}}
    file = tmp_path / "CroCo_V2.pth"
    torch.save(found, file)
    checkpoint = find_croco(file)
    assert checkpoint is not None
    settings = checkpoint.settings()
    assert settings == {
        "patch_size": 8, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "decoder_hidden_size": 16, "decoder_layers": 3, "decoder_heads": 2,
        "positions": positions, "normalise_memory": True,
    }  # fmt: skip
    assert CroCo.settings_of(file, CroCoConfig()) == settings
    model = CroCo(CroCoConfig(image_size=32, **settings), facts(), init=file)
    for name, value in source.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value), name


@pytest.mark.parametrize("kwargs", [{}, {"enc_embed_dim": 1024, "enc_depth": 24, "enc_num_heads": 16, "pos_embed": "RoPE100"}])
def test_official_names_and_shapes(kwargs: dict[str, Any]) -> None:
    """The first version's file says nothing: its shape is that of the defaults."""
    preset = "v2-large" if kwargs else "v1-base"
    with torch.device("meta"):
        model = CroCo(PRESETS[preset].method, facts(size=224)).network
    names = to_official(model)
    assert set(from_official(names)) == {*model.encoder.state_dict(), *model.decoder.state_dict()}
    depth = {"enc": model.encoder.config.num_layers, "dec": model.decoder.config.num_layers}
    encoder = [f"{part}.{kind}" for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")]
    crossed = [f"cross_attn.{part}.{kind}" for part in ("projq", "projk", "projv", "proj") for kind in ("weight", "bias")]
    norms = [f"{part}.{kind}" for part in ("norm3", "norm_y") for kind in ("weight", "bias")]
    wanted = {f"enc_blocks.{i}.{part}" for i in range(depth["enc"]) for part in encoder}
    wanted |= {f"dec_blocks.{i}.{part}" for i in range(depth["dec"]) for part in (*encoder, *crossed, *norms)}
    single = ("patch_embed.proj", "enc_norm", "decoder_embed", "dec_norm", "prediction_head")
    wanted |= {f"{part}.{kind}" for part in single for kind in ("weight", "bias")}
    assert set(names) == wanted | {"mask_token"} | (set() if kwargs else {"enc_pos_embed", "dec_pos_embed"})
    assert DEFAULTS["dec_embed_dim"] == 512


def test_tables_of_another_size_are_interpolated(tmp_path: Path) -> None:
    source = network("cosine")
    file = tmp_path / "CroCo.pth"
    torch.save({"model": official_state(source), "croco_kwargs": KWARGS | {"pos_embed": "cosine"}}, file)
    checkpoint = find_croco(file)
    assert checkpoint is not None
    model = CroCo(CroCoConfig(image_size=64, **checkpoint.settings()), facts(size=64), init=file)
    for name, table in (("encoder.pos_embed", source.encoder.pos_embed), ("decoder.dec_pos_embed", source.decoder.dec_pos_embed)):
        assert torch.equal(model.network.state_dict()[name], interpolate_positions(table, (4, 4), (8, 8)))


def test_a_shape_in_words_is_read_and_never_run(tmp_path: Path) -> None:
    assert parse_call("CroCoNet(enc_embed_dim=1024, pos_embed='RoPE100')", tmp_path) == {"enc_embed_dim": 1024, "pos_embed": "RoPE100"}
    for text in ("__import__('os').abort()", "CroCoNet(enc_depth=open('x'))", "CroCoNet(1024)", "Other(enc_depth=1)", "("):
        with pytest.raises(BadInput, match="is not read"):
            parse_call(text, tmp_path)


def test_a_stated_shape_that_the_weights_have_not_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    wrongs: list[tuple[dict[str, Any], str]]
    wrongs = [({"enc_depth": 3}, "its weights are of"), ({"dec_num_heads": 3}, "split over 3 heads"), ({"pos_embed": "RoPE10"}, "positions")]
    for wrong, words in wrongs:
        torch.save({"model": official_state(network("rope")), "croco_kwargs": KWARGS | {"pos_embed": "RoPE100"} | wrong}, file)
        with pytest.raises(BadInput, match=words):
            find_croco(file)


@pytest.mark.parametrize("positions", ["cosine", "rope"])
def test_images_of_another_size(positions: str) -> None:
    """Any multiple of the patch, not square: places come from the grid as it is. On a part of an image in its corner rotary places are the same."""
    model = network(positions)
    images = wave((1, 3, 16, 48), 1)
    outputs = Binocular(model.encoder, model.decoder)(images, images)
    assert [list(output.shape[1:]) for output in outputs] == [[12, 32]] * 2 + [[12, 16]] * 3
    if positions == "rope":
        found = model.decoder.rotation((2, 6))
        assert found is not None
        torch.testing.assert_close(found.cos, rope_2d(grid_coordinates((2, 6)), 8).cos)
