"""DropPos beyond the numbered checks: options, recipe and layout of the official code, its cost, and what a person is shown."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from headstart.backbones.vit_blocks import patchify
from headstart.core.rng import Rng
from headstart.engine.config import OptimizerConfig
from headstart.engine.flops import count_flops
from headstart.engine.method import Context
from headstart.engine.optim import build_optimizer, clip_gradients
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.methods.droppos.config import IMAGENET_EPOCH, PRESETS, DropPosConfig
from headstart.methods.droppos.method import Draw, DropPos, seen_and_put
from headstart.methods.mae.config import MAEConfig
from headstart.methods.mae.method import MAE
from headstart.objectives.positions import (
    position_losses,
    smoothing_map,
    squared_distances,
    unsure,
)
from tests.faithfulness import official_vit
from tests.faithfulness.drop_positions import context, facts, method, pixels, small
from tests.no_waiting import NoWaiting

LABELS = torch.tensor([0, 3])

LOGITS = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]]).log()


class Sure(DropPos):
    """Knows every place, or one that is `shift` further on."""

    shift = 0

    def name(self, features: Tensor, draw: Draw) -> Tensor:
        return 50 * torch.nn.functional.one_hot((draw.labels() + self.shift) % self.places, self.places).float()


@pytest.mark.slow
@pytest.mark.parametrize(("attentive", "by_rule"), [(False, 28.5), (True, 63.6)])
def test_flops_of_a_base_image(attentive: bool, by_rule: float) -> None:
    """The rule counts all patches as embedded and predicted, and the gradient of the pixels; ours leaves out what is not needed of these."""
    blocks = lambda width, depth, tokens: depth * (24 * tokens * width**2 + 4 * tokens**2 * width)  # noqa: E731
    embedded, predicted = 2 * 196 * 768 * 768, 2 * 50 * 512 * 196
    trained = blocks(768, 12, 50) + blocks(512, 2, 50) + embedded + 2 * 50 * 768 * 512 + predicted
    looked = blocks(768, 12, 197) + embedded if attentive else 0
    assert (3 * trained + looked) / 1e9 == pytest.approx(by_rule, abs=0.06)
    with torch.device("meta"):
        model = DropPos(dataclasses.replace(PRESETS["base"].method, attentive=attentive), facts(size=224))
        patches = torch.empty(1, 196, 768)
        ctx = Context(0, 10, "train", Rng(torch.zeros((), dtype=torch.int64), torch.arange(1)), torch.device("meta"))

    def step() -> None:
        draw = model.draw(ctx.rng)
        logits = model.decoder(model.features(patches, draw), draw.dropped)
        (model.weights(patches, draw) * position_losses(logits, draw.labels(), model.smoothing(ctx))).sum().backward()

    ours = 3 * trained + looked - (3 - 2 * 49 / 196) * embedded - 3 * (1 - 37 / 50) * predicted
    assert count_flops(step) == pytest.approx(ours, rel=1e-3)


def test_only_what_is_still_unsure_is_scored_where_asked() -> None:
    smooth = smoothing_map(squared_distances((2, 2)), 1.0)
    assert unsure(LOGITS, LABELS, smooth).tolist() == [False, True]  # .7 and .25 against .534
    model = method(conf_ignore=True, attentive=False)
    scalars = model.loss(pixels(), context())
    assert float(scalars["weight"]) == 54  # nothing is sure yet: 9 of 6 images
    scalars = Sure(model.config, facts()).loss(pixels(), context())
    assert (float(scalars["weight"]), float(scalars["loss"])) == (0, 0)


def test_each_tensor_is_clipped_by_its_own_norm() -> None:
    """Quirk 3 of the official code: preset base-released has it, the paper's presets clip nothing."""
    large, small_one = torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.zeros(2))
    large.grad, small_one.grad = torch.full((4,), 10.0), torch.tensor([3.0, 0.0])
    norm = clip_gradients([large, small_one], 5.0, each=True)
    assert float(norm) == pytest.approx(math.sqrt(409))
    torch.testing.assert_close(large.grad, torch.full((4,), 2.5))
    assert torch.equal(small_one.grad, torch.tensor([3.0, 0.0]))
    assert PRESETS["base"].optimizer["clip_norm"] is None
    assert (PRESETS["base-released"].optimizer["clip_norm"], PRESETS["base-released"].optimizer["clip_each"]) == (5.0, True)
    assert PRESETS["base-released"].method.official_quirks
    DropPos(dataclasses.replace(PRESETS["base-released"].method, hidden_size=48, num_layers=1, num_heads=3), facts(size=224))


def test_the_official_layout_round_trips(tmp_path: Path) -> None:
    """{'epoch', 'state_dict', 'optimizer', 'model'}, names with 'module.' in front, the auxiliary decoder's with 'aux_'."""
    source = method(seed=1, multi_task=True)
    pixel = {name if name == "mask_token" else f"aux_{name}": value for name, value in source.pixel_decoder.state_dict().items()}
    weights = source.encoder.state_dict() | source.decoder.state_dict() | pixel | {"mask_pos_token": source.mask_pos_token.data}
    file = tmp_path / "checkpoint-799.pth"
    torch.save({"epoch": 800, "state_dict": {}, "optimizer": {}, "model": {f"module.{name}": value for name, value in weights.items()}}, file)
    model = DropPos(small(multi_task=True), facts(), init=file)
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    model.export(tmp_path / "export")
    again = model.reload(tmp_path / "export")
    for name, value in source.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    peer = AutoModel.from_pretrained(tmp_path / "export", add_pooling_layer=False)
    with torch.no_grad():
        images = model.plain(pixels())
        torch.testing.assert_close(peer(images).last_hidden_state, model.encoder(images), rtol=1e-4, atol=1e-5)


def test_the_official_layout_loads_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every name of models_DropPos_mae.py finds its place, and nothing of ours is left without one."""
    state = official_vit.encoder(48, 2, 49, 4)
    state |= official_vit.decoder(48, 64, 1, outputs=49) | official_vit.decoder(48, 64, 1, outputs=48, prefix="aux_")
    state |= {"mask_pos_token": torch.randn(1, 1, 48), "mask_token": torch.randn(1, 1, 64), "aux_decoder_pos_embed": torch.randn(1, 50, 64)}
    file = tmp_path / "checkpoint-799.pth"
    torch.save({"epoch": 800, "state_dict": {}, "optimizer": {}, "model": {f"module.{name}": value for name, value in state.items()}}, file)
    model = DropPos(small(multi_task=True), facts(), init=file)
    assert caplog.text == ""
    own = {name.removeprefix("encoder.").removeprefix("decoder."): value for name, value in model.state_dict().items() if name != "last"}
    ours = {
        name.removeprefix("pixel_decoder.") if name == "pixel_decoder.mask_token" else name.replace("pixel_decoder.", "aux_"): value
        for name, value in own.items()
    }
    assert ours.keys() == state.keys()
    for name, value in ours.items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize(("preset", "warmup_epochs"), [("base", 10), ("large", 40)])
def test_recipe(preset: str, warmup_epochs: int) -> None:
    """Up to 1.5e-4 * batch / 256 in 10 epochs (base) or 40 (large) of 800, then half a cosine to 0; AdamW (.9, .95), weight decay .05 of matrices and
    tokens; sigma falls once an epoch."""
    chosen = PRESETS[preset]
    schedule, optimizer = ScheduleConfig(**chosen.schedule), OptimizerConfig(**chosen.optimizer)
    middle = (warmup_epochs + 800) // 2
    rates = [multiplier(epoch * IMAGENET_EPOCH, chosen.steps or 0, schedule) for epoch in (0, warmup_epochs // 2, warmup_epochs, middle, 800)]
    assert rates == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-6)
    assert (chosen.batch, chosen.method.sigma_epochs) == (4096, 800)
    assert optimizer.learning_rate == pytest.approx(1.5e-4 * 4096 / 256)
    assert (optimizer.name, optimizer.beta1, optimizer.beta2, optimizer.weight_decay, optimizer.clip_norm) == ("adamw", 0.9, 0.95, 0.05, None)
    decays = {name: group["weight_decay"] for group in build_optimizer(method(), optimizer).param_groups for name in group["names"]}
    assert decays["mask_pos_token"] == decays["encoder.cls_token"] == decays["decoder.decoder_pred.weight"] == 0.05
    assert all(decay == 0 for name, decay in decays.items() if name.endswith("bias") or "norm" in name)


@pytest.mark.parametrize(("preset", "encoder"), [("small", (384, 12, 6)), ("base", (768, 12, 12)), ("large", (1024, 24, 16))])
def test_presets_are_the_specifications_table(preset: str, encoder: tuple[int, int, int]) -> None:
    wanted = DropPosConfig(
        224, 16, *encoder, decoder_hidden_size=512, decoder_layers=2, decoder_heads=16, mask_ratio=0.75, drop_ratio=0.75, mask_token_type="param",
        sigma=1.0, sigma_decay=True, sigma_epochs=800, attentive=True, temperature=0.1, conf_ignore=False, multi_task=False, crop_smallest=0.2,
        flip=0.5, official_quirks=False,
    )  # fmt: skip
    assert PRESETS[preset].method == wanted
    assert PRESETS["base-released"].method == dataclasses.replace(PRESETS["base"].method, official_quirks=True)


def test_another_grid_interpolates_positions_and_starts_the_head_fresh(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    method(seed=1).export(tmp_path)
    DropPos(small(image_size=32), facts(), init=tmp_path)
    assert "positions of a grid of 7 x 7 patches were interpolated (bicubic) to 8 x 8" in caplog.text
    assert "2 weights start fresh (decoder_pred.weight, decoder_pred.bias)" in caplog.text


def test_the_decoder_of_mae_is_no_start_for_that_of_droppos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    mae = MAE(MAEConfig(28, 4, 48, 2, 3, 64, 1, 4), facts())
    mae.export(tmp_path)
    model = DropPos(small(multi_task=True), facts(), init=tmp_path)
    assert "The decoder starts fresh: the file holds none of this kind and size." in caplog.text
    assert torch.equal(model.encoder.blocks[1].mlp.fc2.weight, mae.encoder.blocks[1].mlp.fc2.weight)
    assert not torch.equal(model.decoder.decoder_embed.weight, mae.decoder.decoder_embed.weight)


@pytest.mark.parametrize(
    "changes", [{}, {"sigma_decay": False}, {"mask_token_type": "wrong_pos"}, {"multi_task": True, "conf_ignore": True, "mask_token_type": "zeros"}]
)
def test_a_step_never_waits_for_the_device(changes: dict[str, Any]) -> None:
    model, batch, ctx = method(**changes), pixels(), context()
    with NoWaiting():
        model.items(batch, ctx)
        model.loss(batch, ctx)["loss"].backward()


def test_show_compares_places() -> None:
    model = Sure(small(), facts())
    assert model.show(pixels(), context())[0] == "9 of 9 places right, mean distance 0.00 cells"
    model.shift = 7  # all of them one row too low, the last row's in the first
    rows = model.draw(context().rng).labels()[0] // 7
    distance = float(torch.where(rows < 6, 1, 6).float().mean())
    line = model.show(pixels(), context())[0]
    assert line.startswith(f"0 of 9 places right, mean distance {distance:.2f} cells; (")
    assert line.count(" taken for ") == 4


def test_pictures_put_patches_where_the_network_says() -> None:
    patches = torch.arange(4.0).view(1, 4, 1).expand(-1, -1, 3) + 1  # 2 x 2 places of one pixel, three channels
    both = seen_and_put(patches, torch.tensor([[0, 3]]), torch.tensor([[0, 1]]), 1, (2, 2))
    assert both[0, 0].tolist() == [[1, 0, 1, 4], [0, 4, 0, 0]]
    assert method().pictures(pixels(), context()).shape == (6, 3, 28, 56)


def test_a_run_that_still_guesses_is_said() -> None:
    model = method()
    assert model.warnings() == []
    model.observe({"position_accuracy": torch.tensor(0.03), "position_loss": torch.tensor(3.88)})
    assert "accuracy 0.030 at the end, chance is 0.020 (loss 3.88, ln 49 = 3.89)" in model.warnings()[0]
    model.observe({"position_accuracy": torch.tensor(0.2), "position_loss": torch.tensor(3.0)})
    assert model.warnings() == []


def test_held_out_accuracy_counts_textured_patches_alone_too() -> None:
    model = method()
    batch = pixels()
    batch["images"][:3] = 7  # three images of one colour
    scalars = model.evaluate(batch, context())
    assert float(scalars["weight/textured_accuracy"]) == 27
    draw = model.draw(context().rng)
    logits = model.decoder(model.features(patchify(model.plain(batch), 4), draw), draw.dropped)
    guesses = logits.argmax(-1) == draw.labels()
    assert float(scalars["position_accuracy"]) == pytest.approx(float(guesses.float().mean()))
    assert float(scalars["textured_accuracy"]) == pytest.approx(float(guesses[3:].float().mean()))
