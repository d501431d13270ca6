"""Dense tasks: easy ones are learned, from folders and from memory, by every encoder; models load again; what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.backbones.croco import CroCoNet, DecoderConfig
from headstart.backbones.vit import ViT, ViTConfig
from headstart.core.errors import BadInput, UsageError
from headstart.interop.croco import save_croco
from headstart.interop.vit import save_vit
from headstart.tasks.dense import build, finetune_dense, load_network
from headstart.tasks.dense_config import CONFIGS, DenseConfig, DenseRegressionConfig, DepthConfig, FlowConfig, SegmentationConfig, StereoConfig
from headstart.tasks.dense_data import DenseData, read_dense
from headstart.tasks.dense_network import DPTHead, LinearHead, TwoView
from headstart.tasks.dense_saved import load_dense
from headstart.tasks.dense_tasks import make_task
from headstart.tasks.dense_training import examples, measure, parameter_groups, predictions, train_dense
from headstart.tasks.rectified import unrectified, vertical_shift
from headstart.tasks.result import Arm, Result, SeedRun

SHAPE = ViTConfig(image_size=(16, 16), patch_size=4, hidden_size=32, num_layers=2, num_heads=2, class_token=False, positions="rope")
QUICK: dict[str, Any] = {"steps": 60, "batch": 16, "learning_rate": 3e-3}


def images(count: int, seed: int, size: int = 16) -> np.ndarray:
    """uint8 [count, 3, size, size]: two halves, the red one brighter, at a random place."""
    random = np.random.default_rng(seed)
    found = random.integers(0, 60, (count, 3, size, size)).astype(np.uint8)
    for image in found:
        at = int(random.integers(3, size - 3))
        image[0, :, at:] += 180
    return found


def masks(of: np.ndarray) -> np.ndarray:
    return (of[:, 0] > 120).astype(np.int32)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ViT(SHAPE)
    out = tmp_path_factory.mktemp("vit")
    save_vit(network, out, {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": [0.3] * 3, "image_std": [0.3] * 3})
    return out


@pytest.fixture(scope="module")
def croco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of CroCo: two encoder blocks and two of the decoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CroCoNet(SHAPE, DecoderConfig(32, 2, 2, positions="rope"))
    out = tmp_path_factory.mktemp("croco")
    save_vit(network.encoder, out)
    save_croco(network, out)
    return out


def pairs(count: int, seed: int, size: int = 16) -> DenseData:
    """Stereo: noise, and the same moved by 1, 2 or 3 pixels."""
    random = np.random.default_rng(seed)
    wide = random.integers(0, 256, (count, 3, size, size + 4)).astype(np.uint8)
    moved = random.integers(1, 4, count)
    left = wide[..., :size]
    right = np.stack([view[..., by : by + size] for view, by in zip(wide, moved, strict=True)])
    truth = np.broadcast_to(moved[:, None, None, None], (count, 1, size, size)).astype(np.float32)
    return DenseData.of_arrays([left, right], truth)


# --- learning -------------------------------------------------------------------------------------------------------------------------------------


def test_an_easy_segmentation_is_learned_beside_a_random_start_and_loads_again(encoder: Path, tmp_path: Path) -> None:
    train, test = images(48, 0), images(24, 1)
    said: list[str] = []
    result = finetune_dense(
        "segmentation",
        encoder,
        DenseData.of_arrays([train], masks(train)),
        DenseData.of_arrays([test], masks(test)),
        config=SegmentationConfig(**QUICK),
        seeds=3,
        report=said.append,
        out=tmp_path,
    )
    assert [arm.arm for arm in result.arms] == ["pretrained", "random"]
    assert result.arm("pretrained").mean("miou") > 0.85
    assert set(result.arms[0].runs[0].metrics) == {"miou", "pixel_accuracy", "mean_accuracy"}
    assert "95 % interval" in result.verdict()
    assert "over 3 seeds and 24 test records" in result.verdict()
    for run in result.arms[1].runs:
        assert run.records is not None
        assert run.records.values.mean() == pytest.approx(run.metrics["miou"])
    assert result.data["classes"] == ["0", "1"]
    assert said[-1].startswith("random, seed 2: miou ")
    saved = load_dense(tmp_path / "model", device="cpu")
    guesses = np.stack(saved.predict(list(test)))
    assert (guesses == masks(test)).mean() == pytest.approx(result.arms[0].runs[0].metrics["pixel_accuracy"])
    with Image.open(tmp_path / "pictures" / "step-00000000-predictions.png") as picture:
        assert picture.width == 3 * 16 * 6, "the image, the truth, the prediction, each six times as large"
    stored = json.loads((tmp_path / "result.json").read_text())
    assert (stored["higher_is_better"], stored["config"]["steps"]) == (True, 60)


def test_numbers_are_learned_in_their_own_unit_and_the_lower_error_is_better(encoder: Path) -> None:
    train, test = images(48, 0), images(24, 1)
    of = lambda part: DenseData.of_arrays([part], 5000 + 20 * part[:, :1].astype(np.float32))  # noqa: E731
    result = finetune_dense("dense-regression", encoder, of(train), of(test), config=DenseRegressionConfig(**QUICK), seeds=1, baseline=False)
    metrics = result.arms[0].runs[0].metrics
    assert metrics["r2"] > 0.9
    assert metrics["rmse"] < 0.35 * (20 * test[:, 0].astype(float)).std()
    assert not result.higher_is_better
    assert "rmse" in result.verdict()
    assert "lower is better" in result.verdict()


def told_by_the_second(count: int, seed: int) -> DenseData:
    """The brightness of the second view says the disparity, 1, 2 or 3; the first view is noise."""
    random = np.random.default_rng(seed)
    left, right = random.integers(0, 60, (2, count, 3, 16, 16)).astype(np.uint8)
    said = random.integers(1, 4, count)
    right += (60 * said).astype(np.uint8)[:, None, None, None]
    return DenseData.of_arrays([left, right], np.broadcast_to(said[:, None, None, None], (count, 1, 16, 16)).astype(np.float32))


def test_what_only_the_second_view_tells_is_learned(croco: Path) -> None:
    """With the second view of another pair the error is that of what this one says."""
    train, test = told_by_the_second(64, 0), told_by_the_second(32, 1)
    config = StereoConfig(steps=80, batch=16, learning_rate=3e-3, loss="l1", augment=False)
    task = make_task("stereo", config, train)
    model = build(croco, task, config, torch.full((3,), 90.0), torch.full((3,), 60.0), seed=0)
    train_dense(model, task, train, (16, 16), config, config.learning_rate, 0)
    device = torch.device("cpu")
    true, other = (measure(model, task, test, (16, 16), config, device, of) for of in (lambda n: n, lambda n: (n + 1) % 32))
    assert true.metrics["avgerr"] < 0.3
    assert other.metrics["avgerr"] > true.metrics["avgerr"] + 0.4


@pytest.mark.parametrize(("task", "config"), [("stereo", StereoConfig), ("flow", FlowConfig)])
def test_stereo_and_flow_with_confidence_run_and_load_again(task: str, config: type[DenseConfig], croco: Path, tmp_path: Path) -> None:
    data = pairs(6, 0, size=24)
    if task == "flow":
        truth = np.stack([np.concatenate([-data[i].target, data[i].target * 0]) for i in range(6)])
        data = DenseData.of_arrays([np.stack([data[i].views[v] for i in range(6)]) for v in (0, 1)], truth)
    chosen = config(steps=3, batch=4)
    result = finetune_dense(task, croco, data, data, config=chosen, seeds=1, out=tmp_path / "out")
    assert result.arms[0].runs[0].metrics[result.metric] >= 0
    assert "6 of 6 test images stand in the training images." in result.leaks
    saved = load_dense(tmp_path / "out" / "model", device="cpu")
    assert saved.model.network.with_confidence
    found = saved.predict([tuple(data[0].views)])[0]
    assert found.shape == ((24, 24) if task == "stereo" else (2, 24, 24))
    expected = next(predictions(saved.model, make_task(task, chosen, data), data, saved.crop, chosen, torch.device("cpu")))[1]
    np.testing.assert_allclose(found, expected[0].numpy().squeeze(), atol=1e-5)
    again = load_network(tmp_path / "out" / "model", 2)[0]
    assert torch.equal(again.decoder.dec_blocks[0].cross_attn.projq.weight, saved.model.network.network.decoder.dec_blocks[0].cross_attn.projq.weight)
    with pytest.raises(UsageError, match="takes 2 views of one size"):
        saved.predict([(data[0].views[0], data[0].views[1][..., :20])])


SHAPES: dict[str, dict[str, Any]] = {
    "class token, fixed positions": {"class_token": True, "positions": "sincos"},
    "learned positions, five bands": {"class_token": True, "positions": "learned", "channels": 5},
    "groups of bands": {"channels": 3, "groups": ((0, 1), (2,)), "group_width": 8, "positions": "sincos"},
}


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_every_encoder_does_every_task_on_one_view(changes: dict[str, Any], tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ViT(SHAPE.at(**changes))
    save_vit(network, tmp_path)
    part = images(8, 0)[:, [0, 1, 2, 0, 1][: network.config.channels]]
    numbers = 1 + part[:, :1].astype(np.float32)
    for task, targets in (("segmentation", masks(part)), ("dense-regression", numbers), ("depth", numbers)):
        data = DenseData.of_arrays([part], targets)
        out = tmp_path / task
        result = finetune_dense(task, tmp_path, data, data, config=CONFIGS[task](steps=2, batch=4, drop_path=0.1), seeds=1, out=out)
        assert [arm.runs[0].steps for arm in result.arms] == [2, 2]
        found = load_dense(out / "model", device="cpu").predict([part[0]])[0]
        assert found.shape == (16, 16)


def test_another_encoder_gets_a_decoder_of_its_own_width_for_two_views(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_vit(ViT(SHAPE.at(class_token=True, positions="sincos")), tmp_path)
    data = pairs(4, 0)
    config = StereoConfig(steps=1, batch=4, augment=False)
    result = finetune_dense("stereo", tmp_path, data, data, config=config, seeds=1, baseline=False, out=tmp_path / "out")
    assert any("The decoder starts fresh, 2 blocks" in warning for warning in result.warnings)
    saved = load_dense(tmp_path / "out" / "model", device="cpu")
    assert isinstance(saved.model.network, TwoView)
    assert saved.model.network.network.decoder.config == DecoderConfig(32, 2, 2, positions="cosine")


@pytest.mark.parametrize(("mine", "said"), [(1.0, "helps"), (3.0, "hurts")])
def test_where_lower_is_better_the_lower_one_has_helped(mine: float, said: str) -> None:
    def arm(name: str, value: float) -> Arm:
        turned = (0.0, 0.01, 0.02) if name == "pretrained" else (0.02, 0.01, 0.0)  # differences that are all alike would give no interval
        runs = [SeedRun(seed, {"rmse": value + more}, None, 0.0, None, 1, 0.0) for seed, more in enumerate(turned)]
        return Arm(name, 1e-3, runs)

    result = Result("dense-regression", "rmse", "m", [arm("pretrained", mine), arm("random", 2.0)], {}, higher_is_better=False)
    assert f"The head start {said}: rmse {mine + 0.01:.4f} (lower is better) against 2.0100" in result.verdict()
    assert result.to_json()["higher_is_better"] is False


# --- starts, rates, examples ----------------------------------------------------------------------------------------------------------------------


def test_a_random_start_is_random_in_encoder_and_decoder_and_goes_by_the_seed(croco: Path) -> None:
    data = pairs(4, 0)
    config = StereoConfig(loss="l1")
    task = make_task("stereo", config, data)
    made = lambda seed, fresh: dict(build(croco, task, config, torch.zeros(3), torch.ones(3), seed, fresh).named_parameters())  # noqa: E731
    first, other, random, again = made(0, False), made(1, False), made(0, True), made(0, True)
    inner = "network.network."
    for name in (inner + "encoder.blocks.0.attn.qkv.weight", inner + "decoder.dec_blocks.1.cross_attn.projv.weight"):
        assert torch.equal(first[name], other[name])
        assert not torch.equal(first[name], random[name])
        assert torch.equal(random[name], again[name])
    head = "network.head.linear.weight"
    assert not torch.equal(first[head], other[head])
    assert torch.unique(first["network.head.linear.bias"]).tolist() == [float(np.median(data.target_values()))]


def test_rates_fall_with_depth_and_vectors_do_not_decay(croco: Path) -> None:
    data = pairs(4, 0)
    config = StereoConfig(layer_decay=0.5, weight_decay=0.1)
    model = build(croco, make_task("stereo", config, data), config, torch.zeros(3), torch.ones(3), 0)
    names = {id(value): name for name, value in model.named_parameters()}
    found = {names[id(value)]: (group["lr_scale"], group["weight_decay"]) for group in parameter_groups(model, config) for value in group["params"]}  # type: ignore[attr-defined]
    assert found["network.head.linear.weight"] == (1.0, 0.1)
    assert found["network.network.decoder.dec_blocks.1.mlp.fc1.weight"] == (0.5, 0.1)
    assert found["network.network.encoder.blocks.0.norm1.weight"] == (0.5**4, 0.0)
    assert found["network.network.encoder.patch_embed.proj.weight"] == (0.5**5, 0.1)
    assert len(found) == len(names)


def test_examples_depend_on_seed_step_and_record_alone() -> None:
    data = pairs(6, 0, size=24)
    task = make_task("stereo", StereoConfig(), data)
    views, truth = examples(task, data, np.array([2, 5]), 7, 3, (16, 16))
    again, of_again = examples(task, data, np.array([5]), 7, 3, (16, 16))
    assert torch.equal(again[1][0], views[1][1])
    assert torch.equal(of_again[0], truth[1])
    assert not torch.equal(examples(task, data, np.array([5]), 7, 4, (16, 16))[0][0], again[0])
    assert views[0].shape == (2, 3, 16, 16)


def test_the_head_reads_four_blocks_where_it_is_asked_to(encoder: Path) -> None:
    part = images(4, 0)
    data = DenseData.of_arrays([part], masks(part))
    config = SegmentationConfig(steps=1, head="dpt", hooks=(0, 0, 1, 1))
    task = make_task("segmentation", config, data)
    model = build(encoder, task, config, torch.zeros(3), torch.ones(3), 0)
    assert isinstance(model.network.head, DPTHead)
    assert model(torch.from_numpy(part[:2])).values.shape == (2, 2, 16, 16)
    assert isinstance(build(encoder, task, SegmentationConfig(), torch.zeros(3), torch.ones(3), 0).network.head, LinearHead)
    with pytest.raises(UsageError, match=r"halves the grid of 3 x 4 patches\.\n.*--head linear"):
        finetune_dense("segmentation", encoder, data, data, config=SegmentationConfig(head="dpt", hooks=(0, 0, 1, 1), crop=(12, 16)))
    with pytest.raises(UsageError, match="cannot be cut into patches"):
        finetune_dense("segmentation", encoder, data, data, config=SegmentationConfig(crop=(14, 16)))


# --- files ----------------------------------------------------------------------------------------------------------------------------------------


def test_images_of_many_sizes_from_a_folder(encoder: Path, tmp_path: Path) -> None:
    for split, sizes in (("train", (16, 20, 31)), ("test", (16, 40, 9))):
        for number, size in enumerate(sizes):
            picture = images(1, number, max(size, 16))[0][:, :size, :size].transpose(1, 2, 0)
            mask = (picture[..., 0] > 120).astype(np.uint8)
            mask[0, 0] = 255
            for kind, pixels in (("images", picture), ("masks", mask)):
                (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / split / kind / f"{number}.png")
    (tmp_path / "train" / "images" / "alone.png").write_bytes((tmp_path / "train" / "images" / "0.png").read_bytes())
    config = SegmentationConfig(steps=2, scale=(0.5, 2.0), colour_jitter=0.4)
    sources = (tmp_path / "train", tmp_path / "test")
    result = finetune_dense("segmentation", encoder, *sources, config=config, seeds=1, baseline=False, out=tmp_path / "out")
    assert result.data["test"] == 3
    assert any("1 of 4 images in" in warning for warning in result.warnings)
    found = load_dense(tmp_path / "out" / "model", device="cpu").predict([tmp_path / "test" / "images" / f"{n}.png" for n in range(3)])
    assert [guess.shape for guess in found] == [(16, 16), (40, 40), (9, 9)]
    (tmp_path / "test" / "masks" / "0.png").unlink()
    Image.fromarray(np.full((16, 16), 9, np.uint8)).save(tmp_path / "test" / "masks" / "0.png")
    with pytest.raises(BadInput, match=r"has the class 9, the training masks have 2 \(0 to 1\)"):
        finetune_dense("segmentation", encoder, tmp_path / "train", tmp_path / "test", config=config)
    Image.fromarray(np.zeros((16, 17), np.uint8)).save(tmp_path / "train" / "masks" / "0.png")
    with pytest.raises(BadInput, match=r"0\.png: is 17 x 16 pixels, its image 16 x 16 pixels"):
        finetune_dense("segmentation", encoder, tmp_path / "train", tmp_path / "test", config=config)


def test_memory_is_bounded_and_what_does_not_fit_is_read_again(tmp_path: Path, encoder: Path) -> None:
    for kind in ("images", "targets"):
        (tmp_path / kind).mkdir()
    for number in range(3):
        Image.fromarray(images(1, number)[0].transpose(1, 2, 0)).save(tmp_path / "images" / f"{number}.png")
        np.save(tmp_path / "targets" / f"{number}.npy", np.full((16, 16), number, np.float32))
    data = read_dense(tmp_path, "dense-regression", DenseRegressionConfig(), 3)
    kept = [data[number] for number in range(3)]
    small = DenseData([None] * 3, lambda number: kept[number])
    small._room = kept[0].views[0].nbytes + kept[0].target.nbytes
    small.read_all()
    assert [sample is not None for sample in small._samples] == [True, False, False]
    assert np.array_equal(small[2].target, kept[2].target)
    assert small.hashes == data.hashes


def test_what_is_not_scored_has_no_influence(encoder: Path) -> None:
    part = images(4, 0)
    spoiled = masks(part)
    spoiled[:, :4] = -1
    data = DenseData.of_arrays([part], spoiled)
    config = SegmentationConfig(class_names=("dark", "red"))
    task = make_task("segmentation", config, data)
    model = build(encoder, task, config, torch.zeros(3), torch.ones(3), 0)
    found = measure(model, task, data, (16, 16), config, torch.device("cpu")).metrics
    other = spoiled.copy()
    other[:, :4] = np.where(masks(part)[:, :4] == 1, -1, -7)
    assert measure(model, task, DenseData.of_arrays([part], other), (16, 16), config, torch.device("cpu")).metrics == found
    depth = DenseData.of_arrays([part], np.where(masks(part)[:, None] == 1, np.nan, 3.0).astype(np.float32))
    of_depth = make_task("depth", DepthConfig(), depth)
    assert (of_depth.shift.tolist(), of_depth.scale.tolist()) == ([3.0], [1.0])


def test_test_images_that_only_look_like_training_images_are_said(encoder: Path) -> None:
    part = images(6, 0)
    darker = (part * 0.9).astype(np.uint8)
    data = [DenseData.of_arrays([of], masks(part)) for of in (part, np.concatenate([darker[:2], part[2:3], images(3, 9)]))]
    found = finetune_dense("segmentation", encoder, *data, config=SegmentationConfig(steps=1), seeds=1, baseline=False).leaks
    assert found[0] == "1 of 6 test images stands in the training images."
    assert "test images look nearly like one of the training images; the first is number 1." in found[1]


def test_settings_and_data_that_do_not_fit_are_refused(encoder: Path) -> None:
    part = images(4, 0)
    data, numbers = DenseData.of_arrays([part], masks(part)), DenseData.of_arrays([part], part[:, :1].astype(np.float32))
    with pytest.raises(UsageError, match="settings are a DepthConfig, the task is segmentation"):
        finetune_dense("segmentation", encoder, data, data, config=DepthConfig())
    with pytest.raises(UsageError, match="no dense task 'juggling'"):
        finetune_dense("juggling", encoder, data, data)
    with pytest.raises(UsageError, match="need dev data"):
        finetune_dense("segmentation", encoder, data, data, config=SegmentationConfig(learning_rates=(1e-3, 3e-3)))
    with pytest.raises(BadInput, match="targets of type float32"):
        finetune_dense("segmentation", encoder, numbers, numbers)
    with pytest.raises(BadInput, match="has 1 views a record"):
        finetune_dense("stereo", encoder, numbers, numbers)
    with pytest.raises(BadInput, match="1 channels, the network takes 3"):
        finetune_dense("segmentation", encoder, DenseData.of_arrays([part[:, :1]], masks(part)), data)
    with pytest.raises(BadInput, match="has the class 1, 1 are named"):
        finetune_dense("segmentation", encoder, data, data, config=SegmentationConfig(class_names=("all",)))
    for wrong in ({"crop": (16,)}, {"hooks": (1, 2)}, {"overlap": 1.0}, {"scale": (2.0, 1.0)}, {"flip": 1.5}, {"layer_decay": 0.0}):
        with pytest.raises(UsageError, match="--" + next(iter(wrong)).replace("_", "-")):
            SegmentationConfig(**wrong)  # type: ignore[arg-type]


def test_a_spoiled_model_is_refused(croco: Path, tmp_path: Path) -> None:
    data = pairs(4, 0)
    finetune_dense("stereo", croco, data, data, config=StereoConfig(steps=1, augment=False), seeds=1, baseline=False, out=tmp_path)
    path = tmp_path / "model" / "task.json"
    text = path.read_text()
    changes = {'"format_version": 1': '"format_version": 2', '"linear"': '"lines"', '"channels": 1': '"channels": 2', '"stereo"': '"flaw"'}
    for old, new in changes.items():
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(BadInput):
            load_dense(tmp_path / "model")


# --- rectified? -----------------------------------------------------------------------------------------------------------------------------------


def test_views_that_are_not_rectified_are_noticed() -> None:
    random = np.random.default_rng(0)
    tall = random.integers(0, 256, (5, 3, 48, 20)).astype(np.uint8)
    left, right = tall[:, :, 8:40], tall[:, :, 5:37]  # what is in row 0 of the left view is in row 3 of the right one
    assert [vertical_shift(a, b) for a, b in zip(left, right, strict=True)] == [3] * 5
    assert vertical_shift(left[0], left[0]) == 0
    truth = np.zeros((5, 1, 32, 20), np.float32)
    assert "5 of 5 pairs the right view seems to lie +3 rows lower" in (unrectified(DenseData.of_arrays([left, right], truth)) or "")
    assert unrectified(DenseData.of_arrays([left, left], truth)) is None
