"""The numbers of the MAE appendix of DropPos's specification: hand numbers, sizes, tables and equality with transformers' ViTMAE."""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, ViTMAEConfig, ViTMAEForPreTraining

from headstart.backbones.vit_blocks import patchify, take
from headstart.core.errors import UsageError
from headstart.core.rng import Rng
from headstart.engine.config import OptimizerConfig
from headstart.engine.flops import count_flops
from headstart.engine.method import Context
from headstart.engine.optim import build_optimizer
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.engine.update import Update
from headstart.interop.vit import read_vit
from headstart.interop.vit_names import to_transformers
from headstart.methods.mae.config import IMAGENET_EPOCH, PRESETS, MAEConfig
from headstart.methods.mae.method import MAE
from headstart.objectives.patches import Split, normalise_patches, patch_errors, random_split
from headstart.objectives.seen import kept_count
from tests.faithfulness import official_vit
from tests.no_waiting import NoWaiting


def facts(channels: int = 3, size: int = 32) -> Any:
    """What a method reads of a store."""
    return SimpleNamespace(channels=channels, height=size, width=size, mean=[120.0] * channels, std=[60.0] * channels, dtype=np.dtype(np.uint8))


def small(**changes: Any) -> MAEConfig:
    settings: dict[str, Any] = {"hidden_size": 48, "num_layers": 2, "num_heads": 3, "decoder_hidden_size": 32, "decoder_layers": 1}
    return MAEConfig(**settings | changes)


def method(seed: int = 0, channels: int = 3, **changes: Any) -> MAE:
    torch.manual_seed(seed)
    return MAE(small(**changes), facts(channels))


def pixels(rows: int = 6, channels: int = 3, size: int = 32, seed: int = 0) -> dict[str, Tensor]:
    return {"images": torch.randint(0, 256, (rows, channels, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)}


def context(step: int = 0, rows: int = 6) -> Context:
    return Context(step, 100, "train", Rng.at(0, step, torch.arange(rows)), torch.device("cpu"))


def count(modules: list[torch.nn.Module]) -> tuple[int, int]:
    """Trained parameters, and those with the fixed positions."""
    trained = sum(p.numel() for module in modules for p in module.parameters())
    return trained, trained + sum(b.numel() for module in modules for b in module.buffers())


@pytest.mark.parametrize(
    ("preset", "trained", "with_positions"),
    [("base", 111_655_680, 111_907_840), ("large", 329_239_296, 329_541_888), ("huge", 656_613_964, 657_074_508)],
)
def test_parameters(preset: str, trained: int, with_positions: int) -> None:
    with torch.device("meta"):
        model = MAE(PRESETS[preset].method, facts(size=224))
    assert count([model.encoder, model.decoder]) == (trained, with_positions)
    if preset == "base":
        assert count([model.encoder])[0] == 85_647_360
        assert model.kept == 49


def test_normalised_targets() -> None:
    found = normalise_patches(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.testing.assert_close(found, torch.tensor([-1.161895, -0.387298, 0.387298, 1.161895]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("values", "score"), [(768, 0.998698), (48, 0.979167), (4, 0.75)])
def test_a_dead_decoder_scores_about_1(values: int, score: float) -> None:
    target = normalise_patches(torch.linspace(0, 1, values).repeat(50, 1))
    torch.testing.assert_close(patch_errors(torch.zeros_like(target), target), torch.full((50,), score), rtol=0, atol=1e-3)
    constant = normalise_patches(torch.full((2, values), 0.3))
    assert bool((patch_errors(torch.zeros_like(constant), constant) == 0).all())


def test_the_loss_starts_near_its_reference_line() -> None:
    """1 + 2P / (P + values per patch): the variance of Xavier's predictions, added to that of the targets."""
    starts = [float(method(seed, decoder_hidden_size=64).loss(pixels(), context())["loss"].detach()) for seed in range(8)]
    assert sum(starts) / 8 == pytest.approx(1 + 2 * 64 / (64 + 48), abs=0.25)


def test_masking_keeps_a_quarter_chosen_by_noise() -> None:
    noise = torch.rand(500, 196, generator=torch.Generator().manual_seed(0))
    split = random_split(noise, kept_count(196, 0.75))
    assert split.keep.shape == (500, 49)
    assert torch.equal(torch.cat(split, dim=1).sort(1).values, torch.arange(196).expand(500, -1))
    assert bool((noise.gather(1, split.keep).amax(1) < noise.gather(1, split.rest).amin(1)).all())
    assert bool((noise.gather(1, split.keep).diff() >= 0).all())
    rate = torch.zeros(196).index_add_(0, split.keep.flatten(), torch.ones(500 * 49)) / 500
    assert float((rate - 0.25).abs().max()) < 4 * math.sqrt(0.25 * 0.75 / 500)
    assert [kept_count(total, ratio) for total, ratio in ((10, 0.9), (196, 0.75), (49, 0.75), (64, 0.9))] == [1, 49, 12, 6]


def official_loss(model: MAE, images: Tensor, split: Split) -> Tensor:
    """The loss as models_mae.py computes it: every patch embedded, unshuffled, predicted and scored, then the mask."""
    encoder, decoder = model.encoder, model.decoder
    patches = patchify(images, model.config.patch_size)
    tokens = encoder.patch_embed.proj(images).flatten(2).transpose(1, 2) + encoder.pos_embed[:, 1:]
    features = decoder.decoder_embed(encoder.encode(take(tokens, split.keep)))
    shuffled = torch.cat([features[:, 1:], decoder.mask_token.expand(len(images), split.rest.shape[1], -1)], dim=1)
    restore = torch.cat(split, dim=1).argsort(1)
    whole = torch.cat([features[:, :1], take(shuffled, restore)], dim=1) + decoder.decoder_pos_embed
    predicted = decoder.decoder_pred(decoder.decode(whole))[:, 1:]
    mask = torch.ones(len(images), model.total).scatter(1, split.keep, 0.0)
    errors = ((predicted - model.target(patches)) ** 2).mean(-1)
    return (errors * mask).sum() / mask.sum()


@pytest.mark.parametrize("normalise", [True, False])
def test_what_is_left_out_changes_neither_loss_nor_gradient(normalise: bool) -> None:
    model = method(normalise_targets=normalise)
    images, split = model.plain(pixels()), model.split(context().rng)
    wanted = official_loss(model, images, split)
    wanted.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    found = model.errors(images, split)[0].mean()
    found.backward()
    torch.testing.assert_close(found, wanted)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-6)
    assert "encoder.pos_embed" not in gradients
    assert float(gradients["decoder.mask_token"].abs().max()) > 0


def twin(model: MAE) -> ViTMAEForPreTraining:
    """transformers' ViTMAE with the weights of a method."""
    c = model.config
    config = ViTMAEConfig(
        hidden_size=c.hidden_size, num_hidden_layers=c.num_layers, num_attention_heads=c.num_heads, intermediate_size=4 * c.hidden_size,
        image_size=c.image_size, patch_size=c.patch_size, layer_norm_eps=1e-6, mask_ratio=c.mask_ratio, norm_pix_loss=c.normalise_targets,
        decoder_hidden_size=c.decoder_hidden_size, decoder_num_hidden_layers=c.decoder_layers, decoder_num_attention_heads=c.decoder_heads,
        decoder_intermediate_size=4 * c.decoder_hidden_size, num_channels=model.store.channels,
    )  # fmt: skip
    network = ViTMAEForPreTraining(config)
    missing = load_by_file(network, to_transformers(model.encoder.state_dict() | model.decoder.state_dict(), "vit."))
    assert missing == []
    return network


def load_by_file(network: ViTMAEForPreTraining, weights: dict[str, Tensor]) -> list[str]:
    """Loads names as they stand in files, through transformers' own conversion; returns what did not arrive."""
    loaded, info = type(network).from_pretrained(None, config=network.config, state_dict=weights, output_loading_info=True)
    network.load_state_dict(loaded.state_dict())
    return sorted(info["missing_keys"]) + sorted(info["unexpected_keys"])


@pytest.mark.parametrize("normalise", [True, False])
def test_equal_to_transformers_in_loss_and_gradient(normalise: bool) -> None:
    model = method(normalise_targets=normalise)
    peer = twin(model)
    images, noise = model.plain(pixels()), torch.rand(6, 64, generator=torch.Generator().manual_seed(5))
    theirs = peer(pixel_values=images, noise=noise).loss
    ours = model.errors(images, random_split(noise, model.kept))[0].mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    theirs.backward()
    ours.backward()
    wanted = {name: p.grad for name, p in peer.named_parameters() if p.grad is not None}
    blocks = {f"vit.layers.{i}.mlp.fc1.weight": f"encoder.blocks.{i}.mlp.fc1.weight" for i in range(2)}
    pairs = blocks | {
        "vit.embeddings.cls_token": "encoder.cls_token",
        "vit.embeddings.patch_embeddings.projection.weight": "encoder.patch_embed.proj.weight",
        "vit.layernorm.weight": "encoder.norm.weight",
        "decoder.mask_token": "decoder.mask_token",
        "decoder.decoder_pred.weight": "decoder.decoder_pred.weight",
        "decoder.decoder_layers.0.mlp.fc2.weight": "decoder.decoder_blocks.0.mlp.fc2.weight",
    }
    found = dict(model.named_parameters())
    for name, own in pairs.items():
        if name in wanted or "layers" not in name:  # other versions of transformers name layers otherwise
            torch.testing.assert_close(found[own].grad, wanted[name], rtol=1e-3, atol=1e-6)


def rule_of_flops(images: int, width: int, depth: int, tokens: int) -> int:
    """Forward FLOPs of ViT blocks by the specification's counting rule: 24 n D^2 + 4 n^2 D each."""
    return images * depth * (24 * tokens * width**2 + 4 * tokens**2 * width)


@pytest.mark.slow
def test_flops_of_a_base_image() -> None:
    """58.7 GFLOP by the rule, which counts every patch as embedded and predicted and the gradient of the pixels; ours leaves these three out."""
    embedded, read, predicted = 2 * 196 * 768 * 768, 2 * 50 * 768 * 512, 2 * 196 * 512 * 768
    forward = rule_of_flops(1, 768, 12, 50) + rule_of_flops(1, 512, 8, 197) + embedded + read + predicted
    assert 3 * forward / 1e9 == pytest.approx(58.7, abs=0.05)
    with torch.device("meta"):
        model = MAE(PRESETS["base"].method, facts(size=224))
        images = torch.empty(1, 3, 224, 224)
        split = random_split(torch.empty(1, 196), model.kept)
    counted = count_flops(lambda: model.errors(images, split)[0].mean().backward())
    seen, hidden = 49 / 196, 147 / 196
    ours = 3 * forward - (3 - 2 * seen) * embedded - 3 * (1 - hidden) * predicted
    assert counted == pytest.approx(ours, rel=1e-3)
    assert counted / 1e9 == pytest.approx(58.0, abs=0.1)


def test_recipe() -> None:
    """Learning rates at epochs 0, 20, 40, 420 and 799 of 800; AdamW (.9, .95), weight decay .05, no clipping; tokens decay, vectors do not."""
    preset = PRESETS["base"]
    schedule, optimizer = ScheduleConfig(**preset.schedule), OptimizerConfig(**preset.optimizer)
    rates = [optimizer.learning_rate * multiplier(epoch * IMAGENET_EPOCH, preset.steps or 0, schedule) for epoch in (0, 20, 40, 420, 799)]
    assert rates == pytest.approx([0, 0.0012, 0.0024, 0.0012, 1.03e-8], rel=1e-2)
    assert optimizer.learning_rate == pytest.approx(1.5e-4 * preset.batch / 256)
    assert (optimizer.name, optimizer.beta1, optimizer.beta2, optimizer.weight_decay, optimizer.clip_norm) == ("adamw", 0.9, 0.95, 0.05, None)
    groups = build_optimizer(method(), optimizer).param_groups
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decays["encoder.cls_token"] == decays["decoder.mask_token"] == decays["encoder.patch_embed.proj.weight"] == 0.05
    assert all(decay == 0 for name, decay in decays.items() if name.endswith("bias") or "norm" in name)


def test_micro_batches_give_the_loss_of_the_whole() -> None:
    whole, halves = ([], [])
    for cuts, into in (((0, 6),), whole), (((0, 2), (2, 6)), halves):
        model = method()
        optimizer = build_optimizer(model, OptimizerConfig(learning_rate=1e-3))
        update = Update(model, optimizer, clip_norm=None, precision="fp32", device=torch.device("cpu"), seed=0, total_steps=10)
        for step in range(2):
            batches = [{"images": pixels()["images"][a:b]} for a, b in cuts]
            into.append(float(update(batches, [torch.arange(a, b) for a, b in cuts], step, "train")["loss"]))
    assert whole == pytest.approx(halves, rel=1e-5)
    assert whole[0] != whole[1]


def test_a_step_never_waits_for_the_device() -> None:
    model, batch, ctx = method(), pixels(), context()
    with NoWaiting():
        model.loss(batch, ctx)["loss"].backward()


def test_exports_answer_as_the_method_does(tmp_path: Path) -> None:
    model = method().eval()
    model.export(tmp_path)
    batch = pixels()
    peer = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False)
    with torch.no_grad():
        torch.testing.assert_close(peer(model.plain(batch)).last_hidden_state, model.encoder(model.plain(batch)), rtol=1e-4, atol=1e-5)
    again = model.reload(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert load_file(tmp_path / "timm.safetensors").keys() == model.encoder.state_dict().keys()


def test_official_checkpoints_load(tmp_path: Path) -> None:
    """{'model', 'optimizer', 'epoch', 'scaler', 'args'}, the arguments a pickled Namespace, names as if wrapped."""
    source = method(seed=1)
    weights = {f"module.{name}": value for name, value in (source.encoder.state_dict() | source.decoder.state_dict()).items()}
    file = tmp_path / "mae_pretrain.pth"
    torch.save({"model": weights, "optimizer": {"state": {}}, "epoch": 399, "scaler": {"scale": 1.0}, "args": argparse.Namespace(lr=1e-3)}, file)
    found = read_vit(file)
    assert found.settings() == {"patch_size": 4, "hidden_size": 48, "num_layers": 2}  # 48 is no published width: its heads are unknown
    model = MAE(small(), facts(), init=file)
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_the_official_layout_loads_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every name of models_mae.py finds its place, and nothing of ours is left without one."""
    state = official_vit.encoder(48, 2, 64, 4) | official_vit.decoder(48, 32, 1, outputs=48)
    state |= {"mask_token": torch.randn(1, 1, 32), "decoder_pos_embed": torch.randn(1, 65, 32)}
    file = tmp_path / "mae_pretrain.pth"
    torch.save({"model": state}, file)
    model = MAE(small(), facts(), init=file)
    assert caplog.text == ""
    ours = model.encoder.state_dict() | model.decoder.state_dict()
    assert ours.keys() == state.keys()
    for name, value in ours.items():
        assert torch.equal(value, state[name]), name


def test_a_masking_that_shows_or_hides_nothing_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UsageError, match="shows 0 of 4 patches"):
        method(patch_size=16, mask_ratio=0.9)
    with pytest.raises(UsageError, match="shows 4 of 4 patches"):
        method(patch_size=16, mask_ratio=1e-9)
    with pytest.raises(UsageError, match="share between 0 and 1"):
        method(mask_ratio=1.0)
    method(patch_size=8, mask_ratio=0.85)
    assert "sees 2 of 16 patches: it is nearly blind" in caplog.text


def test_a_side_that_the_patch_does_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match="nearest good sides are 28 or 32"):
        method(image_size=30)


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_any_number_of_channels(channels: int) -> None:
    model = method(channels=channels)
    assert model.decoder.decoder_pred.out_features == 16 * channels
    model.loss(pixels(channels=channels), context())["loss"].backward()
    assert model.pictures(pixels(channels=channels), context()).shape == (6, channels, 32, 96)


def test_pictures_show_what_was_seen_drawn_and_true() -> None:
    model = method()
    batch, ctx = pixels(), context()
    seen, drawn, true = (part for part in model.pictures(batch, ctx).chunk(3, dim=3))
    assert torch.equal(true, model.plain(batch))
    keep = torch.zeros(6, 64, dtype=torch.bool).scatter(1, model.split(ctx.rng).keep, True)
    for part in (seen, drawn):
        assert torch.equal(patchify(part, 4)[keep], patchify(true, 4)[keep])
    assert bool((patchify(seen, 4)[~keep] == 0).all())
    mean = patchify(true, 4)[~keep].mean(-1)
    assert float(patchify(drawn, 4)[~keep].mean(-1).sub(mean).abs().mean()) < 1  # the true mean, and what the decoder adds to it


def test_a_decoder_that_learnt_nothing_is_said() -> None:
    model = method()
    assert model.warnings() == []  # nothing was trained
    model.observe({"loss": torch.tensor(0.99), "grey_loss": torch.tensor(0.98)})
    assert "learnt nothing yet: its loss is 0.990, that of predicting 0 is 0.980" in model.warnings()[0]
    model.observe({"loss": torch.tensor(0.7), "grey_loss": torch.tensor(0.98)})
    assert model.warnings() == []


def test_a_few_updates_on_one_batch_learn() -> None:
    model = method()
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=3e-3, beta2=0.95))
    update = Update(model, optimizer, clip_norm=None, precision="fp32", device=torch.device("cpu"), seed=0, total_steps=100)
    ramp = torch.arange(32, dtype=torch.float32).mul(7).to(torch.uint8).expand(6, 3, 32, 32).contiguous()
    losses = [float(update([{"images": ramp}], [torch.arange(6)], step, "train")["loss"]) for step in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(math.isfinite(a) and b != a for a, b in itertools.pairwise(losses))
