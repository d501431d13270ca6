"""CroCo as a method: data to batch to loss to export, whatever the cut of a batch."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from headstart.backbones.vit import ViT, ViTConfig
from headstart.backbones.vit_blocks import patchify
from headstart.core.errors import UsageError
from headstart.core.files import read_json
from headstart.core.rng import Rng
from headstart.data.image.pair_config import PairConfig
from headstart.engine.config import OptimizerConfig
from headstart.engine.method import Context
from headstart.engine.optim import build_optimizer
from headstart.engine.update import Update
from headstart.interop.croco import croco_kwargs, to_official
from headstart.interop.vit import load_vit, save_vit
from headstart.methods.croco.config import PRESETS, CroCoConfig
from headstart.methods.croco.method import CroCo

SIZES: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_layers": 1, "num_heads": 2, "mask_ratio": 0.7, "decoder_hidden_size": 16,
    "decoder_layers": 2, "decoder_heads": 2,
}  # fmt: skip


def facts(channels: int = 3, size: int = 36, dtype: type = np.uint8) -> Any:
    """What a method reads of a store."""
    return SimpleNamespace(channels=channels, height=size, width=size, mean=[120.0] * channels, std=[60.0] * channels, dtype=np.dtype(dtype))


def method(seed: int = 0, channels: int = 3, size: int = 36, **changes: Any) -> CroCo:
    torch.manual_seed(seed)
    return CroCo(CroCoConfig(**SIZES | changes), facts(channels, size))


def batch(rows: int = 6, channels: int = 3, size: int = 36) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    return {name: torch.randint(0, 256, (rows, channels, size, size), generator=draws, dtype=torch.uint8) for name in ("images", "second_images")}


def context(step: int = 0, rows: int = 6) -> Context:
    return Context(step, 100, "train", Rng.at(0, step, torch.arange(rows)), torch.device("cpu"))


def write_pairs(folder: Path, pairs: int, size: int = 40) -> Path:
    draws = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(pairs):
        for view in (1, 2):
            Image.fromarray(draws.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"{number:03d}_{view}.png")
    return folder


def test_from_a_folder_to_a_loss(tmp_path: Path) -> None:
    data = PairConfig(size=36, held_out_share=0.2)
    store = CroCo.prepare([write_pairs(tmp_path / "in", 12)], tmp_path / "store", data)
    model = CroCo(CroCoConfig(**SIZES), CroCo.open_store(tmp_path / "store"))
    rows = CroCo.rows(store, model.config)
    given = {name: torch.from_numpy(values) for name, values in rows.batch(np.arange(4)).items()}
    scalars = model.loss(given, context(rows=4))
    assert math.isfinite(float(scalars["loss"].detach()))
    assert CroCo.source_changes(store, [tmp_path / "in"]) == []
    assert CroCo.preparation_changes(store, data) == {}
    assert CroCo.preparation_changes(store, PairConfig(size=36, held_out_share=0.2, frame_gap=2)) == {"frame_gap": (5, 2)}
    assert model.embed(model.encode([tmp_path / "in" / "000_1.png"])).shape == (1, 32)
    few, settings = CroCo.smoke_source([tmp_path / "in"], tmp_path / "smoke", data, 5)
    assert len(CroCo.prepare(few, tmp_path / "few", settings).pairs) == 5


def test_micro_batches_give_the_loss_of_the_whole() -> None:
    whole, halves = ([], [])
    for cuts, into in (((0, 6),), whole), (((0, 2), (2, 6)), halves):
        model = method()
        optimizer = build_optimizer(model, OptimizerConfig(learning_rate=1e-3))
        update = Update(model, optimizer, clip_norm=None, precision="fp32", device=torch.device("cpu"), seed=0, total_steps=10)
        for step in range(2):
            batches = [{name: values[a:b] for name, values in batch().items()} for a, b in cuts]
            into.append(float(update(batches, [torch.arange(a, b) for a, b in cuts], step, "train")["loss"]))
    assert whole == pytest.approx(halves, rel=1e-5)
    assert whole[0] != whole[1]


@pytest.mark.parametrize("changes", [{}, {"positions": "cosine", "score": "all"}, {"second_view": "none"}])
def test_a_step_never_waits_for_the_device(changes: dict[str, Any]) -> None:
    """Fake tensors hold no values: an `.item()`, a boolean index or a shape that depends on data would raise. So a CUDA graph can hold the step."""
    mode, rng = FakeTensorMode(allow_non_fake_inputs=True), Rng.at(0, 0, torch.arange(4))
    with FakeCopyMode(mode):
        model = copy.deepcopy(method(**changes))
    with mode:
        fake = {name: mode.from_tensor(value) for name, value in batch(rows=4).items()}
        ctx = Context(0, 100, "train", Rng(mode.from_tensor(rng.key), mode.from_tensor(rng.rows)), torch.device("cpu"))
        scalars = model.loss(fake, ctx)
        scalars["loss"].backward()
    assert all(value.shape == () for value in scalars.values())


def test_the_control_has_the_second_view_of_another_pair(tmp_path: Path) -> None:
    """By the rows of the data, so that no cut of a batch changes it."""
    store = CroCo.prepare([write_pairs(tmp_path / "in", 6)], tmp_path / "store", PairConfig(size=36, held_out_share=0.0))
    true, other = (CroCo.rows(store, CroCoConfig(second_view=which)).batch(np.arange(6)) for which in ("paired", "other"))  # type: ignore[arg-type]
    assert np.array_equal(true["images"], other["images"])
    assert np.array_equal(true["second_images"][[3, 4, 5, 0, 1, 2]], other["second_images"])


@pytest.mark.parametrize("positions", ["cosine", "rope"])
def test_exports_hold_the_whole_network_and_the_encoder_alone(positions: str, tmp_path: Path) -> None:
    model = method(positions=positions).eval()
    model.export(tmp_path)
    again = model.reload(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    official = load_file(tmp_path / "croco.safetensors")
    assert {name: list(value.shape) for name, value in official.items()} == {
        name: list(value.shape) for name, value in to_official(model.network).items()
    }
    kwargs = read_json(tmp_path / "croco.json")
    assert kwargs == croco_kwargs(model.network, 0.7)
    assert (kwargs["pos_embed"], kwargs["norm_im2_in_dec"]) == ("cosine" if positions == "cosine" else "RoPE100", True)
    encoder, notes = load_vit(tmp_path)
    assert notes == []
    assert not encoder.config.class_token
    assert not (tmp_path / "config.json").exists()  # transformers has no such network
    images = model.plain(batch())
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), model.network.encoder(images), rtol=0, atol=1e-6)
    timm = load_file(tmp_path / "timm.safetensors")
    assert ("pos_embed" in timm) == (positions == "cosine")
    if positions == "cosine":
        assert timm["pos_embed"].shape == (1, 16, 32)


def test_it_starts_from_any_vision_transformer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One with a class token and learned positions, for one channel more than here."""
    other = ViT(ViTConfig((32, 32), 8, 4, 32, 1, 2, positions="learned"))
    save_vit(other, tmp_path)
    assert CroCo.settings_of(tmp_path, CroCoConfig())["hidden_size"] == 32
    torch.manual_seed(0)
    model = CroCo(CroCoConfig(**SIZES), facts(), init=tmp_path)
    assert torch.equal(model.network.encoder.state_dict()["blocks.0.mlp.fc1.weight"], other.state_dict()["blocks.0.mlp.fc1.weight"])
    assert "The decoder starts fresh" in caplog.text
    assert "positions of the file are not used" in caplog.text
    assert "made for 4 channels and was adapted to 3" in caplog.text


def test_it_goes_on_without_the_second_view_and_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The arms of the claim: all weights of equal name are taken, the others start fresh."""
    single = method(second_view="none")
    single.export(tmp_path)
    paired = CroCo(CroCoConfig(**SIZES), facts(), init=tmp_path)
    taken = single.network.decoder.state_dict()
    assert all(torch.equal(paired.network.decoder.state_dict()[name], value) for name, value in taken.items())
    assert "dec_blocks.0.cross_attn.projq.weight" in caplog.text


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_any_number_of_channels(channels: int) -> None:
    model = method(channels=channels)
    model.loss(batch(channels=channels), context())["loss"].backward()
    assert model.pictures(batch(channels=channels), context()).shape == (6, channels, 32, 128)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_pictures_show_what_was_seen_drawn_and_true() -> None:
    model = method()
    seen, drawn, first, second = model.pictures(batch(), context()).chunk(4, dim=3)
    wanted = model.middle_views(batch())
    assert torch.equal(first, wanted[0])
    assert torch.equal(second, wanted[1])
    keep = torch.zeros(6, 16, dtype=torch.bool).scatter(1, model.split(context().rng).keep, True)
    for part in (seen, drawn):
        assert torch.equal(patchify(part, 8)[keep], patchify(first, 8)[keep])
    assert bool((patchify(seen, 8)[~keep] == 0).all())
    torch.testing.assert_close(patchify(drawn, 8)[~keep].mean(-1), patchify(first, 8)[~keep].mean(-1), rtol=0, atol=1.0)
    assert len(model.show(batch(), context())) == 6
    assert "second view" not in method(second_view="none").show(batch(), context())[0]


def test_held_out_metrics_tell_what_the_second_view_gives() -> None:
    model = method(size=40)
    with torch.no_grad():
        found = model.evaluate(batch(size=40), context())
        alone = model.evaluate(batch(rows=1, size=40), context(rows=1))
        tight = method(size=36).evaluate(batch(), context())
    assert set(found) == {"pixel_loss", "grey_loss", "geometry_gain", "cross_view_gain", "offset_ratio"}
    first, second = model.middle_views(batch(size=40))
    split = model.split(context().rng)
    with torch.no_grad():
        true, other, mirrored, moved = (
            float(model.errors(first, view, split)[0].mean())
            for view in (second, second.roll(1, 0), second.flip(3), model.middle_views(batch(size=40), offset=4)[1])
        )
    wanted = {"pixel_loss": true, "cross_view_gain": 1 - true / other, "geometry_gain": 1 - true / mirrored, "offset_ratio": moved / true}
    assert {name: float(found[name]) for name in wanted} == pytest.approx(wanted, abs=1e-5)
    assert min(abs(wanted["cross_view_gain"]), abs(wanted["geometry_gain"])) > 1e-4
    assert "cross_view_gain" not in alone
    assert "offset_ratio" not in tight  # half a patch does not fit beside 32 of 36 pixels
    assert set(method(second_view="none").evaluate(batch(), context())) == {"pixel_loss", "grey_loss"}
    shifted = model.middle_views(batch(size=40), offset=4)[1]
    assert torch.equal(shifted[..., :28, :28], model.middle_views(batch(size=40))[1][..., 4:, 4:])
    assert any("second view does not help" in warning for warning in model.warnings())


def test_a_run_that_learnt_nothing_says_so() -> None:
    model = method()
    assert model.warnings() == []
    model.observe({"loss": torch.tensor(1.0), "grey_loss": torch.tensor(0.99)})
    assert "has learnt nothing yet" in model.warnings()[0]
    model.observe({"loss": torch.tensor(0.5), "grey_loss": torch.tensor(0.99)})
    model.gains.copy_(torch.tensor([0.3, 0.01]))
    assert "by its colours only" in model.warnings()[0]
    model.gains.copy_(torch.tensor([0.3, 0.2]))
    assert model.warnings() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_ratio": 1.0}, "share between 0 and 1"),
        ({"mask_ratio": 0.01}, "shows 16 of 16 patches of the first view"),
        ({"image_size": 40}, "stored images have 36 x 36 pixels, the network sees 40 x 40"),
        ({"colour_jitter": 2.0}, "colour-jitter"),
        ({"decoder_heads": 3}, "16 cannot be split over 3 heads"),
        ({"decoder_hidden_size": 20, "decoder_heads": 10}, "multiple of 4"),
        ({"image_size": 36}, "nearest good sides"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        method(**changes)


def test_a_nearly_blind_first_view_is_said(caplog: pytest.LogCaptureFixture) -> None:
    method(mask_ratio=0.9)
    assert "sees 2 of 16 patches of the first view" in caplog.text


def test_presets_can_be_built() -> None:
    with torch.device("meta"):
        for preset in PRESETS.values():
            assert CroCo(preset.method, facts(size=preset.data["size"])).kept >= 4
