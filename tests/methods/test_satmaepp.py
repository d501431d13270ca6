"""SatMAE++ as a method of the engine: bands and their refusals, invariance of rows, weights in and out, what it shows."""

from __future__ import annotations

import argparse
import copy
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from transformers import AutoModel

from headstart.backbones.vit import ViT, ViTConfig
from headstart.core.errors import BadInput, UsageError
from headstart.core.rng import Rng
from headstart.data.image.augment import normalize, resize
from headstart.engine.method import Context
from headstart.interop.vit import load_vit, save_vit
from headstart.methods.satmaepp.config import SENTINEL_BANDS, SatMAEPPConfig, group_width, resolve_groups
from headstart.methods.satmaepp.method import SatMAEPP
from headstart.methods.satmaepp.network import BilinearHead, dense_features, enlarged
from headstart.methods.satmaepp.weights import BANDS_FILE, read_weights, settings_of
from headstart.tasks.image_classification import statistics
from headstart.tasks.image_data import ImageData
from headstart.verbs._images import next_lines

ROWS = 6


def facts(bands: int = 10, mean: float = 1000.0, std: float = 500.0, dtype: Any = np.uint16) -> Any:
    """What a method reads of a store."""
    means = mean * (1 + 0.01 * np.arange(bands))
    return SimpleNamespace(
        channels=bands, height=32, width=32, mean=means, std=np.full(bands, std), dtype=np.dtype(dtype), folder=Path("store")
    )


def small(**changes: Any) -> SatMAEPPConfig:
    settings: dict[str, Any] = {
        "image_size": 8, "hidden_size": 32, "num_layers": 1, "num_heads": 2, "group_width": 8, "decoder_hidden_size": 32, "decoder_layers": 1,
        "decoder_heads": 2, "decoder_group_width": 8, "proj_ratio": 1, "mask_ratio": 0.5,
    }  # fmt: skip
    return SatMAEPPConfig(**settings | changes)


def method(bands: int = 10, init: Path | None = None, seed: int = 0, **changes: Any) -> SatMAEPP:
    torch.manual_seed(seed)
    return SatMAEPP(small(**changes), facts(bands), init)


def batch_of(bands: int = 10, rows: int = ROWS) -> dict[str, Tensor]:
    values = torch.randint(0, 2500, (rows, bands, 32, 32), generator=torch.Generator().manual_seed(0))
    return {"images": values.to(torch.uint16)}


def context(rows: Tensor | None = None, step: int = 0) -> Context:
    return Context(step, 100, "train", Rng.at(0, step, torch.arange(ROWS) if rows is None else rows), torch.device("cpu"))


# --- bands ------------------------------------------------------------------------------------------------------------------------------------


def test_groups_by_name_by_number_and_as_usual(caplog: pytest.LogCaptureFixture) -> None:
    sentinel = ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))
    named = small(band_names=SENTINEL_BANDS, groups=("B2,B3,B4,B8", "B5,B6,B7,B8A", "B11,B12"))
    assert resolve_groups(named, 10) == resolve_groups(small(groups=("1,2,3,7", "4,5,6,8", "9,10")), 10) == sentinel
    assert resolve_groups(small(), 10) == sentinel
    assert resolve_groups(small(), 3) == resolve_groups(small(), 1) == ()
    caplog.clear()
    assert resolve_groups(small(), 7) == ((0, 1, 2), (3, 4, 5, 6))
    assert "1,2,3 4,5,6,7" in caplog.text
    assert resolve_groups(small(), 4) == ((0, 1, 2, 3),)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"groups": ("1,2", "2,3")}, "has 2 twice"),
        ({"groups": ("1,2",)}, "lacks 3"),
        ({"groups": ("1,2,3,4",)}, "names '4'"),
        ({"band_names": ("red", "green")}, "have 3 bands, --method.band-names says 2"),
        ({"band_names": ("red", "red", "blue")}, "has red twice"),
        ({"band_names": ("r", "g", "b"), "groups": ("r,g", "nir")}, "names 'nir'"),
    ],
)
def test_groups_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve_groups(small(**changes), 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scales": 4}, "scales is 4"),
        ({"crop_factor": 2}, "does not hold 3 scales"),
        ({"crop_factor": 12}, "does not hold 3 scales"),
        ({"normalise_targets": True}, "exclude each other"),
        ({"mask_ratio": 1.0}, "mask-ratio is 1.0"),
        ({"mask_ratio": 0.99}, "shows 0 of 12 tokens"),
        ({"proj_ratio": 0}, "proj-ratio is 0"),
        ({"pixel_weight": 0.0, "scale_weight": 0.0}, "weights of the losses"),
        ({"crop_smallest": 0.0}, "crop-smallest is 0.0"),
        ({"image_size": 10}, "cannot be cut into patches"),
        ({"decoder_group_width": 32}, "leaves nothing of 32"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        method(**changes)


def test_the_width_of_the_group_is_a_quarter_in_steps_of_four() -> None:
    assert [group_width(width, None) for width in (16, 40, 96, 192, 1024)] == [4, 8, 24, 48, 256]
    assert (group_width(768, 256), group_width(96, 0)) == (256, 0)
    model = method(hidden_size=48, group_width=None, decoder_group_width=None)
    assert model.encoder.channel_embed.shape == (1, 3, 12)
    assert model.decoder.decoder_channel_embed.shape == (1, 4, 8)


def test_values_that_cannot_be() -> None:
    constant = facts()
    constant.std[4] = 0.0
    with pytest.raises(BadInput, match="every pixel of band 5"):
        SatMAEPP(small(), constant)
    with pytest.raises(BadInput, match="no reflectances times 10,000"):
        SatMAEPP(small(scaling="reflectance"), facts(mean=0.2, std=0.1, dtype=np.float32))
    with pytest.raises(BadInput, match="no reflectances times 10,000"):
        SatMAEPP(small(scaling="reflectance"), facts(mean=90, std=20, dtype=np.uint8))


def test_scaling() -> None:
    images = torch.tensor([0.0, 1000.0, 1500.0, 9000.0]).expand(1, 4, 4)[:, None].expand(1, 10, 4, 4)
    first = {how: method(scaling=how).scaled(images)[0, 0, 0].tolist() for how in ("clip", "standard", "reflectance", "byte")}
    assert first["clip"] == pytest.approx([0, 127 / 255, 191 / 255, 1])
    assert first["standard"] == pytest.approx([-2, 0, 1, 16])
    assert first["reflectance"] == pytest.approx([0, 0.1, 0.15, 0.9])
    assert first["byte"] == pytest.approx([0, 1000 / 255, 1500 / 255, 9000 / 255])
    assert (method().scaling, method(3).scaling) == ("clip", "standard")


# --- a step -----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"spatial_mask": True}, {"scales": 1}], ids=["three scales", "spatial", "one scale"])
def test_rows_have_the_same_masks_and_loss_in_any_micro_batch(changes: dict[str, Any]) -> None:
    model, batch = method(**changes), batch_of()
    rows = torch.arange(ROWS)
    whole = model.loss(batch, context())
    assert "weight" not in whole
    assert model.items(batch, context()) is None
    for cut in (1, 2, 3):
        parts = [model.loss({"images": batch["images"][i : i + cut]}, context(rows[i : i + cut])) for i in range(0, ROWS, cut)]
        for name, value in whole.items():
            torch.testing.assert_close(torch.stack([part[name] for part in parts]).mean(), value, rtol=1e-5, atol=1e-6, msg=name)
    assert abs(float((model.loss(batch, context(step=1))["loss"] - whole["loss"]).detach())) > 1e-5


def test_a_step_never_waits_for_the_device() -> None:
    """Fake tensors hold no values: an `.item()`, a boolean index or a shape that depends on data would raise. So a CUDA graph can hold the step."""
    rng = Rng.at(0, 0, torch.arange(ROWS))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        model = copy.deepcopy(method())
    with mode:
        fake = {name: mode.from_tensor(value) for name, value in batch_of().items()}
        scalars = model.loss(fake, Context(0, 100, "train", Rng(mode.from_tensor(rng.key), mode.from_tensor(rng.rows)), torch.device("cpu")))
        scalars["loss"].backward()
    assert all(value.shape == () for value in scalars.values())


def test_what_a_decoder_that_knows_nothing_scores() -> None:
    model, batch = method(scales=1, scaling="standard"), batch_of()
    levels, keep = model.scales_of(model.whole(batch)), model.draw(context().rng)
    found = model.losses(levels, keep)
    hidden = model.hidden(keep)
    squares = model.target(levels[0]).square().mean(-1)  # standardised: every band's mean is 0
    by_group = torch.stack([squares[..., list(group)].mean(-1) for group in model.groups], dim=1)
    assert float(found["blank_loss"]) == pytest.approx(float(by_group[hidden].mean()), rel=1e-5)


def test_switches_of_the_scales() -> None:
    batch = batch_of()
    bilinear = method(upsampler="bilinear")
    assert isinstance(bilinear.head, BilinearHead)
    assert list(bilinear.head.parameters()) == []
    cells = bilinear.predict(bilinear.plain(batch), bilinear.draw(context().rng))
    drawn = bilinear.enlarge(cells)
    assert [image.shape[-1] for image in drawn] == [16, 32]
    image = cells.unflatten(3, (4, 4)).unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2, 5).reshape(ROWS, 10, 8, 8)
    torch.testing.assert_close(drawn[1], torch.nn.functional.interpolate(image, scale_factor=4, mode="bilinear"))
    l1, mse = method(), method(scale_loss="mse")
    levels, keep = l1.scales_of(l1.whole(batch)), l1.draw(context().rng)
    twice = l1.enlarge(l1.predict(levels[0], keep))[0]
    assert float(l1.losses(levels, keep)["scale_loss_2x"]) == pytest.approx(float((twice - levels[1]).abs().mean().detach()), rel=1e-4)
    assert float(mse.losses(levels, keep)["scale_loss_2x"]) == pytest.approx(float((twice - levels[1]).square().mean().detach()), rel=1e-4)


def test_one_scale_may_see_the_same_crops_as_three() -> None:
    batch, ctx = batch_of(), context()
    three, one = method(), method(scales=1, crop_factor=4)
    torch.testing.assert_close(three.scales_of(three.augmented(batch, ctx))[0], one.scales_of(one.augmented(batch, ctx))[0])
    assert len(one.scales_of(one.augmented(batch, ctx))) == 1
    assert method(scales=1).augmented(batch, ctx).shape[-1] == 8


def test_evaluation_and_vectors_look_at_whole_images() -> None:
    model, batch = method(), batch_of()
    model.eval()
    scaled = model.scaled(batch["images"])
    torch.testing.assert_close(model.plain(batch), resize(scaled, 8))
    assert model.whole(batch).equal(scaled)
    found = model.evaluate(batch, context())
    levels = model.scales_of(model.whole(batch))
    smooth = [(enlarged(levels[0], 2**i) - levels[i]).abs().mean() for i in (1, 2)]
    assert float(found["smooth_loss"]) == pytest.approx(float(sum(smooth) / 2), rel=1e-5)
    vectors = model.embed(batch)
    features = dense_features(model.encoder, model.plain(batch))
    assert features.shape == (ROWS, 3, 2, 2, 32)
    torch.testing.assert_close(features.mean((1, 2, 3)), vectors)
    # group by group, place by place
    torch.testing.assert_close(features[:, 2, 1, 0], model.encoder(model.plain(batch))[:, 1 + 2 * 4 + 2])


def test_what_it_shows() -> None:
    model, batch = method(), batch_of()
    lines = model.show(batch, context())
    assert len(lines) == ROWS
    assert "on 6 hidden tokens of 12" in lines[0]
    assert "at 2x" in lines[0]
    assert "at 4x" in lines[0]
    panels = model.pictures(batch, context()).unflatten(3, (4, 32))
    assert panels.shape == (ROWS, 10, 32, 4, 32)
    seen, true = panels[..., 0, :], panels[..., 3, :]
    wanted = (model.whole(batch) - 0.5) * 4  # mean +- 2 deviations are 0 and 1
    torch.testing.assert_close(true, wanted, rtol=1e-4, atol=1e-3)
    hidden = model.hidden(model.draw(context().rng))[0, 0].view(2, 2)
    nothing = seen[0, 0].reshape(2, 16, 2, 16).abs().amax((1, 3)) < 1e-3
    assert torch.equal(nothing, hidden)
    assert method(scales=1, normalise_targets=True).pictures(batch, context()).shape == (ROWS, 10, 8, 32)
    assert method(3).pictures(batch_of(3), context()).shape == (ROWS, 3, 32, 128)


def test_a_run_that_learnt_nothing_says_so() -> None:
    model = method()
    assert model.warnings() == []
    model.observe({"pixel_loss": torch.tensor(0.5), "blank_loss": torch.tensor(0.5)})
    assert "learnt nothing yet: its loss is 0.5000" in model.warnings()[0]
    model.observe({"pixel_loss": torch.tensor(0.2), "blank_loss": torch.tensor(0.5)})
    assert model.warnings() == []


# --- weights ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bands", "scales"), [(10, 3), (10, 1), (3, 2), (3, 3)])
def test_an_export_is_the_same_method(bands: int, scales: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = method(bands, scales=scales, patch_size=2)
    model.export(tmp_path)
    torch.manual_seed(1)
    other = model.reload(tmp_path)
    assert caplog.text == ""
    assert isinstance(other, SatMAEPP)
    batch = batch_of(bands)
    for name, value in model.loss(batch, context()).items():
        torch.testing.assert_close(other.loss(batch, context())[name], value)
    encoder, notes = load_vit(tmp_path)
    assert notes == []
    torch.testing.assert_close(encoder.pool(encoder(model.plain(batch))), model.embed(batch))
    said = json.loads((tmp_path / BANDS_FILE).read_text())
    assert said["band_names"] == [str(i + 1) for i in range(bands)]
    assert said["groups"] == (["1,2,3,7", "4,5,6,8", "9,10"] if bands == 10 else [])
    assert said["mean"] == pytest.approx([1000 + 10 * i for i in range(bands)])
    labelled = ImageData(batch["images"].numpy(), np.zeros(ROWS, np.int64))
    middle = batch["images"].int().clamp(100, 1900).to(torch.uint16)  # between the clips
    torch.testing.assert_close(normalize(middle, *statistics(tmp_path, labelled)), model.scaled(middle), rtol=0, atol=1 / 255 + 1e-6)
    settings = SatMAEPP.settings_of(tmp_path, small())
    assert settings["hidden_size"] == 32
    assert settings["num_heads"] == 2
    assert settings["scaling"] == ("clip" if bands == 10 else "standard")
    if bands == 10:
        assert settings["groups"] == ("1,2,3,7", "4,5,6,8", "9,10")
        assert settings["group_width"] == 8


def test_one_group_is_exported_as_the_plain_network_that_it_is(tmp_path: Path) -> None:
    model = method(4, groups=("3,1,2,4",))
    model.export(tmp_path)
    images = model.plain(batch_of(4))
    wanted = model.encoder(images)
    theirs = AutoModel.from_pretrained(tmp_path / "plain", add_pooling_layer=False)
    torch.testing.assert_close(theirs(pixel_values=images).last_hidden_state, wanted, rtol=1e-4, atol=1e-5)
    ours, _ = load_vit(tmp_path / "plain")
    torch.testing.assert_close(ours(images), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bands", [10, 3])
def test_the_line_that_a_run_ends_with_loads_its_export(bands: int, tmp_path: Path) -> None:
    method(bands).export(tmp_path / "export")
    found: dict[str, Any] = {}
    exec(next_lines(tmp_path)[0].removeprefix("Load it:").strip(), found)
    assert sum(p.numel() for p in found["model"].parameters()) >= sum(p.numel() for p in method(bands).encoder.parameters())


def official_file(path: Path, state: dict[str, Tensor]) -> Path:
    """As the released code saves it."""
    torch.save({"model": state, "optimizer": {}, "epoch": 3, "scaler": {}, "args": argparse.Namespace(model="mae_vit_large_patch16")}, path)
    return path


@pytest.mark.parametrize("bands", [10, 3])
def test_released_checkpoints_load_whole(bands: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Random weights under the released names: every one arrives, none is missing or left over."""
    changes: dict[str, Any] = {"scales": 3 if bands == 10 else 2, "patch_size": 2}
    state = {name: torch.randn_like(value) for name, value in method(bands, **changes).official_state().items()}
    path = official_file(tmp_path / "checkpoint-49.pth", state)
    found = read_weights(path)
    model = method(bands, seed=1, **changes)
    model.start_from(found)
    assert caplog.text == ""
    loaded = model.official_state()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    settings = settings_of(found)
    assert (settings["patch_size"], settings["hidden_size"], settings["num_layers"]) == (2, 32, 1)


def test_finetuned_checkpoints_load_with_their_class_embedding(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fine-tuning adds a place and a group to the class token, drops the last norm for fc_norm, and has no decoder."""
    model = method()
    state = {name: torch.randn_like(value) for name, value in model.encoder.state_dict().items() if not name.startswith("norm.")}
    state |= {"channel_cls_embed": torch.randn(1, 1, 8), "fc_norm.weight": torch.randn(32), "fc_norm.bias": torch.randn(32)}
    state |= {"head.weight": torch.randn(5, 32), "head.bias": torch.randn(5)}
    model.start_from(read_weights(official_file(tmp_path / "finetuned.pth", state)))
    first = state["cls_token"] + torch.cat([state["pos_embed"][:, :1], state["channel_cls_embed"]], dim=2)
    torch.testing.assert_close(model.encoder.cls_token, first)
    assert "no norm.weight: it starts fresh" in caplog.text
    assert "The decoder starts fresh" in caplog.text
    assert "Of the enlarging blocks, 28 of 28 weights start fresh" in caplog.text


def test_weights_for_another_grid_and_of_other_groups(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    method(image_size=16).export(tmp_path)
    model = method(init=tmp_path)
    assert "grid of 4 x 4 patches were interpolated (bicubic) to 2 x 2" in caplog.text
    torch.testing.assert_close(model.encoder.channel_embed, method().encoder.channel_embed)
    with pytest.raises(BadInput, match=r"groups of \[4, 4, 2\] bands, this network has groups of \[5, 5\]"):
        method(groups=("1,2,3,4,5", "6,7,8,9,10"), init=tmp_path)
    with pytest.raises(BadInput, match="has groups of bands, this network has none"):
        method(3, init=tmp_path)
    with pytest.raises(BadInput, match=r"is \[32, 4, 4, 4\], the network's is"):
        method(patch_size=8, init=tmp_path)
    with pytest.raises(BadInput, match=r"lacks 12 weights of the network"):
        method(num_layers=2, init=tmp_path)


def test_a_plain_vision_transformer_starts_a_grouped_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(5)
    plain = ViT(ViTConfig(image_size=(8, 8), patch_size=4, hidden_size=32, num_layers=1, num_heads=2))
    save_vit(plain, tmp_path)
    model = method(init=tmp_path)
    assert "made for 3 channels and was adapted to each group" in caplog.text
    assert torch.equal(model.encoder.blocks[0].attn.qkv.weight, plain.blocks[0].attn.qkv.weight)
    weight = plain.patch_embed.proj.weight
    assert torch.equal(model.encoder.patch_embed[0].proj.weight, weight[:, [0, 1, 2, 0]] * 0.75)
    assert torch.equal(model.encoder.patch_embed[2].proj.weight, weight[:, [0, 1]] * 1.5)
    assert torch.equal(model.encoder.cls_token, plain.cls_token)
    assert torch.equal(model.encoder.pos_embed, method().encoder.pos_embed)


def test_continuing_on_values_of_another_unit_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    method().export(tmp_path)
    for mean, std in ((0.1, 0.05), (1e7, 5e6), (9000.0, 300.0)):  # reflectances, ten thousand times too much, nothing but cloud
        with pytest.raises(BadInput, match="reflectances times 10,000"):
            SatMAEPP(small(), facts(mean=mean, std=std), tmp_path)
    caplog.clear()
    SatMAEPP(small(band_names=SENTINEL_BANDS), facts(mean=1100.0), tmp_path)
    assert "trained on the bands 1 2 3" in caplog.text


def test_a_spoilt_description_of_bands_is_refused(tmp_path: Path) -> None:
    method().export(tmp_path)
    said = json.loads((tmp_path / BANDS_FILE).read_text())
    for spoilt in ([], {**said, "mean": "1"}, {**said, "std": [None] * 10}, {**said, "scaling": "magic"}, {**said, "groups": [1]}):
        (tmp_path / BANDS_FILE).write_text(json.dumps(spoilt))
        with pytest.raises(BadInput, match="names, groups and statistics of bands"):
            method(init=tmp_path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda state: state.pop("pos_embed"), "lacks pos_embed"),
        (lambda state: state.update(pos_embed=torch.zeros(1, 4, 24)), "3 positions, which are no square grid"),
        (lambda state: state.update({"patch_embed.1.proj.weight": torch.zeros(32, 4, 2, 2)}), "not square or not of one size"),
        (lambda state: state.update({"blocks.0.extra.weight": torch.zeros(2)}), "has 1 others"),
    ],
)
def test_spoilt_checkpoints_are_refused(spoil: Any, words: str, tmp_path: Path) -> None:
    state = dict(method().official_state())
    spoil(state)
    with pytest.raises(BadInput, match=words):
        method(init=official_file(tmp_path / "spoilt.pth", state))


def test_the_log_says_when_next_to_nothing_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        method(mask_ratio=0.75)
    assert "sees 3 of 12 tokens" in caplog.text
