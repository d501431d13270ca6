"""Fine-tuning on images: rates by depth, an easy task that is learned, the same run twice, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.backbones.vit import ViT, ViTConfig
from headstart.core.errors import BadInput, UsageError
from headstart.interop.vit import save_vit
from headstart.tasks.image_classification import build, finetune_images, frozen_features, parameter_groups, statistics, whole_batches
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.image_data import ImageData, average_precision, image_metrics, read_images
from headstart.tasks.image_network import load_classifier, predict
from headstart.tasks.saved import load_finetuned

SHAPE = ViTConfig(image_size=(16, 16), patch_size=4, channels=1, hidden_size=24, num_layers=2, num_heads=2)
QUICK: dict[str, Any] = {"steps": 80, "batch": 16, "learning_rate": 3e-3, "flip": 0.0}


def bars(count: int, seed: int) -> ImageData:
    """Grey images with a bright bar: class 0 across, class 1 down."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 60, (count, 1, 16, 16)).astype(np.uint8)
    labels = np.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        at = random.integers(2, 12)
        (image[0, at : at + 3] if label == 0 else image[0, :, at : at + 3])[...] += 150
    return ImageData(images, labels, ["across", "down"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ViT(SHAPE)
    out = tmp_path_factory.mktemp("vit")
    save_vit(network, out, {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": [0.2], "image_std": [0.3]})
    return out


def test_an_easy_task_is_learned_beside_a_random_start(folder: Path) -> None:
    result = finetune_images(folder, bars(64, 0), bars(64, 1), config=ImageFinetuneConfig(**QUICK), seeds=3)
    assert result.task == "image-classification"
    assert [arm.arm for arm in result.arms] == ["pretrained", "random"]
    assert result.arm("pretrained").mean("accuracy") > 0.9
    assert result.leaks == []
    assert "95 % interval" in result.verdict()
    assert "over 3 seeds and 64 test records" in result.verdict()
    again = finetune_images(folder, bars(64, 0), bars(64, 1), config=ImageFinetuneConfig(**QUICK), seeds=[1], baseline=False)
    assert again.arms[0].runs[0].metrics == result.arm("pretrained").runs[1].metrics


def test_every_regulariser_at_once_trains_and_several_classes_too(folder: Path) -> None:
    config = ImageFinetuneConfig(**QUICK, mixup=0.8, cutmix=1.0, erasing=0.25, randaugment=9.0, label_smoothing=0.1, drop_path=0.1, clip_norm=1.0)
    result = finetune_images(folder, bars(32, 0), bars(32, 1), config=config, seeds=1, baseline=False)
    assert 0 < result.arms[0].runs[0].loss < 1
    data = bars(64, 0)
    several = ImageData(data.images, np.stack([data.labels == 0, data.labels == 1, np.ones(64, bool)], 1), ["across", "down", "any"])
    found = finetune_images(folder, several, several, config=ImageFinetuneConfig(**QUICK), seeds=1, baseline=False)
    assert found.metric == "map"
    assert found.arms[0].mean("map") > 0.9
    assert "64 of 64 test images stand in the training images" in found.leaks[0]


def write_bars(place: Path, count: int, seed: int) -> Path:
    """Images with a bar across, down, both or none, and a list of them."""
    place.mkdir()
    random = np.random.default_rng(seed)
    lines = ["image,label"]
    for number in range(count):
        image = random.integers(0, 60, (16, 16)).astype(np.uint8)
        across, down, label = number % 4 in (0, 2), number % 4 in (1, 2), ["any"]
        if across:
            image[(at := random.integers(2, 12)) : at + 3] += 150
            label.append("across")
        if down:
            image[:, (at := random.integers(2, 12)) : at + 3] |= 150
            label.append(" down ")
        Image.fromarray(image).save(place / f"{number}.png")
        lines.append(f"{number}.png,{'|'.join(label)}")
    (place / "list.csv").write_text("\n".join(lines))
    return place / "list.csv"


def test_several_classes_of_an_image_are_read_from_its_label(folder: Path, tmp_path: Path) -> None:
    train, test = write_bars(tmp_path / "train", 96, 0), write_bars(tmp_path / "test", 64, 1)
    data = read_images(test, channels=1, size=16, separator="|")
    assert data.classes == ["across", "any", "down"]
    assert data.labels[:4].tolist() == [[True, True, False], [False, True, True], [True, True, True], [False, True, False]]
    assert read_images(test, channels=1, size=16).classes == ["any", "any| down", "any|across", "any|across| down"]
    config = ImageFinetuneConfig(**QUICK | {"steps": 200}, label_separator="|")
    found = finetune_images(folder, train, test, config=config, seeds=1, baseline=False, out=tmp_path / "out")
    assert found.metric == "map"
    assert found.arms[0].mean("map") > 0.9
    said = load_classifier(tmp_path / "out" / "model").predict([tmp_path / "test" / f"{number}.png" for number in range(64)])
    truth = [{name for name, has in zip(data.classes, row, strict=True) if has} for row in data.labels]
    assert np.mean([set(one) == true for one, true in zip(said, truth, strict=True)]) > 0.8
    with pytest.raises(BadInput, match="has the class 'down', which the training images have not"):
        read_images(test, channels=1, size=16, classes=["across", "any"], separator="|")
    with pytest.raises(UsageError, match="--label-separator is empty"):
        ImageFinetuneConfig(label_separator="")
    one = tmp_path / "test" / "one.csv"
    one.write_text("image,label\n0.png,any\n1.png,any|\n")
    with pytest.raises(BadInput, match=r"has 1 class \(any\)"):
        read_images(one, channels=1, size=16, separator="|")


def test_every_batch_is_whole_and_every_image_comes() -> None:
    epochs = [whole_batches(100, 32, seed=0, epoch=epoch) for epoch in range(8)]
    assert {tuple(map(len, batches)) for batches in epochs} == {(32, 32, 32)}
    assert all(len(set(np.concatenate(batches))) == 96 for batches in epochs)
    assert set(np.concatenate([rows for batches in epochs for rows in batches])) == set(range(100))
    assert not np.array_equal(epochs[0][0], epochs[1][0])


def test_rates_by_depth_and_what_decays(folder: Path) -> None:
    mean, std = statistics(folder, bars(4, 0))
    model = build(folder, ImageFinetuneConfig(), bars(4, 0), mean, std, seed=0)
    names = {id(value): name for name, value in model.named_parameters()}
    found = {}
    for group in parameter_groups(model, ImageFinetuneConfig()):
        found |= {names[id(value)]: (group["lr_scale"], group["weight_decay"]) for value in group["params"]}
    assert found["head.weight"] == (1.0, 0.05)
    assert found["fc_norm.weight"] == (1.0, 0.0)
    assert found["encoder.blocks.1.mlp.fc1.weight"] == (0.75, 0.05)
    assert found["encoder.blocks.0.mlp.fc1.bias"] == (0.75**2, 0.0)
    for name, decay in {"patch_embed.proj.weight": 0.05, "cls_token": 0.0, "pos_embed": 0.0}.items():
        assert found[f"encoder.{name}"] == (0.75**3, decay)
    assert len(found) == len(list(model.parameters()))
    assert "encoder.norm.weight" not in found, "the mean of the tokens has a norm of its own"
    assert torch.equal(model.mean, torch.tensor([51.0])), "as the folder says"
    assert model.head.weight.abs().max() < 1e-3


def test_the_start_is_the_network_of_the_folder_or_a_random_one(folder: Path) -> None:
    data = bars(8, 0)
    mean, std = statistics(folder, data)
    build_it = lambda seed, fresh: build(folder, ImageFinetuneConfig(), data, mean, std, seed, fresh).encoder.state_dict()  # noqa: E731
    first, other, random = build_it(0, False), build_it(1, False), build_it(0, True)
    weight = "blocks.0.attn.qkv.weight"
    assert torch.equal(first[weight], other[weight])
    assert not torch.equal(first[weight], random[weight])
    assert torch.equal(build_it(0, True)[weight], random[weight])
    assert not torch.equal(build_it(1, True)[weight], random[weight])
    assert torch.equal(first["pos_embed"], random["pos_embed"]), "sine and cosine are no weights"


def test_features_and_logits_are_of_whole_images_in_any_batch(folder: Path) -> None:
    data = bars(9, 0)
    mean, std = statistics(folder, data)
    features = frozen_features(folder, data.images, mean, std)
    assert features.shape == (9, 24)
    assert torch.allclose(frozen_features(folder, data.images[3:5], mean, std), features[3:5], atol=1e-6)
    model = build(folder, ImageFinetuneConfig(pooling="class"), data, mean, std, seed=0)
    logits = predict(model, data.images, ImageFinetuneConfig(), torch.device("cpu"))
    assert np.allclose(predict(model, data.images[3:5], ImageFinetuneConfig(), torch.device("cpu")), logits[3:5], atol=1e-6)


def test_metrics_by_hand() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.0]])
    found = image_metrics(logits, np.array([0, 1, 1, 0]))
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    assert found["auc"] == pytest.approx(0.75)  # of 4 pairs the positives .0, .5 win 3
    assert average_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([0.5, 0.5]), np.array([1, 0])) == pytest.approx(0.5), "ties come in together"
    several = image_metrics(np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.9]]), np.array([[1, 0], [0, 0], [1, 1]], bool))
    assert several["map"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)


def test_folders_of_classes_are_read_and_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    data = bars(12, 0)
    for number, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        place = tmp_path / "train" / data.classes[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(place / f"{number:02d}.png")
    found = read_images(tmp_path / "train", channels=1, size=16)
    assert found.classes == ["across", "down"]
    assert found.images.shape == (12, 1, 16, 16)
    assert {image.tobytes() for image in found.images} == {image.tobytes() for image in data.images}
    with pytest.raises(BadInput, match="has the class 'down', which the training images have not"):
        read_images(tmp_path / "train", channels=1, size=16, classes=["across", "slanted"])
    with pytest.raises(UsageError, match="no metric map"):
        finetune_images(folder, data, data, config=ImageFinetuneConfig(metric="map"))
    with pytest.raises(UsageError, match="need dev data"):
        finetune_images(folder, data, data, config=ImageFinetuneConfig(learning_rates=(1e-3, 3e-3)))
    with pytest.raises(UsageError, match="3 channels, the network 1"):
        finetune_images(folder, ImageData(np.zeros((2, 3, 16, 16), np.uint8), np.array([0, 1])), data)
    with pytest.raises(UsageError, match=r"--crop-smallest is 0\."):
        ImageFinetuneConfig(crop_smallest=0.0)


def test_a_saved_model_predicts_what_it_predicted(folder: Path, tmp_path: Path) -> None:
    data = bars(24, 1)
    result = finetune_images(folder, bars(64, 0), data, config=ImageFinetuneConfig(**QUICK), seeds=1, baseline=False, out=tmp_path / "out")
    saved = load_classifier(tmp_path / "out" / "model", device="cpu")
    guesses = saved.predict(list(data.images))
    right = sum(guess == data.classes[label] for guess, label in zip(guesses, data.labels, strict=True))
    assert right / 24 == result.arms[0].runs[0].metrics["accuracy"]
    picture = tmp_path / "one.png"
    Image.fromarray(data.images[5, 0]).save(picture)
    assert saved.predict([picture]) == saved.predict(str(picture)) == [guesses[5]]
    with pytest.raises(BadInput, match=r"is of the task image-classification.(.|\n)*Load it with headstart.tasks.image_network.load_classifier"):
        load_finetuned(tmp_path / "out" / "model")
    with pytest.raises(BadInput, match=r"holds no fine-tuned model: it has no task.json(.|\n)*folder `model`"):
        load_classifier(tmp_path / "out")
    task = tmp_path / "out" / "model" / "task.json"
    text = task.read_text()
    for spoiled in (text.replace('"across"', "3"), text.replace('"mean"', '"men"'), text.replace('"format_version": 1', '"format_version": 2')):
        task.write_text(spoiled)
        with pytest.raises(BadInput):
            load_classifier(tmp_path / "out" / "model")


@pytest.mark.parametrize(
    "changes",
    [
        {"class_token": False, "positions": "rope"},
        {"channels": 3, "groups": ((0, 1), (2,)), "group_width": 8},
        {"positions": "learned", "channels": 5},
    ],
    ids=["CroCo's encoder", "groups of bands", "five bands"],
)
def test_every_encoder_is_fine_tuned(changes: dict[str, Any], tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ViT(SHAPE.at(**changes))
    save_vit(network, tmp_path)
    data = bars(32, 0)
    data = ImageData(data.images.repeat(network.config.channels, axis=1), data.labels, data.classes)
    config = ImageFinetuneConfig(**QUICK | {"steps": 6}, drop_path=0.1)
    result = finetune_images(tmp_path, data, data, config=config, seeds=1, out=tmp_path / "out")
    assert [arm.runs[0].steps for arm in result.arms] == [6, 6]
    saved = load_classifier(tmp_path / "out" / "model", device="cpu")
    guesses = saved.predict(list(data.images))
    assert sum(guess == data.classes[label] for guess, label in zip(guesses, data.labels, strict=True)) / 32 == result.arms[0].mean("accuracy")
