"""Fine-tuning of a vision transformer on labelled images, several seeds, always beside the same network from random initialisation.

The procedure is MAE's (He et al. 2022; facebookresearch/mae main_finetune.py): AdamW with layer-wise rates, warm-up and cosine, mean of the patch
tokens under a norm of its own, a head that starts near zero; RandAugment, mixup, cutmix, random erasing and drop path where asked. Or a linear probe
(`image_probe`): the network stays as it is.

    result = finetune_images("runs/mae-tiny-0/export", "train/", "test/")
    print(*result.lines(), sep="\\n")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.kernels import use_fast_kernels
from headstart.backbones.vit import ViT, layer_scales
from headstart.core.errors import UsageError
from headstart.core.rng import Rng, mix_int
from headstart.data.image.augment import normalize, random_resized_crop_flip, resize
from headstart.data.image.reading import Reading
from headstart.engine.device import use_device
from headstart.engine.optim import clip_gradients, set_learning_rate
from headstart.engine.probes import knn_accuracy
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.engine.update import autocast, precision_of
from headstart.interop.vit import load_vit, stated_reading, stated_statistics
from headstart.tasks.arms import Say, Trained, of_each_seed, refuse_choosing_on_test, run_arms, seeds_and_draws, stuck_warnings
from headstart.tasks.epoch_loss import EpochLoss
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.image_data import ImageData, image_metrics, image_records, read_images
from headstart.tasks.image_leaks import image_leaks
from headstart.tasks.image_mixing import erase, mix, soft_targets
from headstart.tasks.image_network import EVAL_BATCH, ImageClassifier, hidden_dropout, of_whole_images, predict, save_classifier
from headstart.tasks.image_probe import Lars, fit_head, folded, normalised_head
from headstart.tasks.image_randaugment import randaugment
from headstart.tasks.kept import Kept
from headstart.tasks.regularise import Regulariser, for_random_start
from headstart.tasks.result import RANDOM, Result
from headstart.tasks.rows import epoch_batches

KNN = "knn_accuracy"


def finetune_images(
    model_folder: str | Path,
    train: Any,
    test: Any,
    dev: Any = None,
    config: ImageFinetuneConfig | None = None,
    seeds: int | Sequence[int] = 5,
    baseline: bool = True,
    report: Callable[[str], None] | None = None,
    out: str | Path | None = None,
    kept: Kept | None = None,
) -> Result:
    """Fine-tunes the vision transformer of a folder and scores it on the test images.

    Args:
        model_folder: what `load_vit` reads: an export of ours, a folder of transformers or timm, a checkpoint file.
        train: labelled images (`read_images` says in which forms) or `ImageData`. A list is one draw for each seed: the interval then covers the
            choice of images too.
        test, dev: likewise, one; dev is needed to try several learning rates.
        seeds: how many (0, 1, ...), or which. A seed decides head, order, augmentation and, for the baseline, the whole network.
        baseline: also train the same network from random initialisation, on the same images with the same seeds.
        report: called with lines of progress.
        out: a folder for result.json and the fine-tuned model of the first seed (`image_network.load_classifier` reads it).
        kept: trainings of an earlier call into `out`, which are not made again.

    Raises:
        BadInput: an image or the folder cannot be used.
        UsageError: a setting is wrong.
        Diverged: a loss was not finite.
    """
    config = config or ImageFinetuneConfig()
    seed_list, draws = seeds_and_draws(seeds, train, "sets of training images")
    refuse_choosing_on_test(config.rates, dev)
    folder = Path(model_folder)
    network, notes = load_vit(folder)
    reading = stated_reading(folder).with_bands(config.bands)
    read = partial(_read, network=network, separator=config.label_separator, reading=reading)
    first = read(draws[0], classes=None)
    trains = [first, *(read(draw, classes=first.classes) for draw in draws[1:])]
    found = {name: read(data, classes=first.classes) for name, data in (("test", test), ("dev", dev)) if data is not None}
    bench = Bench(folder, config, of_each_seed(seed_list, trains), found, *statistics(folder, first), use_device(config.device))
    metric = metric_of(config, first)
    arms, model = run_arms(bench.train, seed_list, config.rates, metric, baseline, report or (lambda line: None), kept=kept)
    leaks = image_leaks(found["test"], trains, folder)
    counts = {"train": len(first), "draws": len(draws)} | {name: len(part) for name, part in found.items()} | {"classes": first.classes}
    warnings = [*notes, *stuck_warnings(arms, "Try another learning rate.")]
    result = Result("image-classification", metric, str(folder), arms, counts, leaks, warnings, dataclasses.asdict(config))
    if out is not None:
        result.save(out, lambda place: save_classifier(place, model(), first.classes, first.several, reading), kept)
    return result


@dataclasses.dataclass
class Bench:
    """Everything that the trainings of one `finetune_images` share."""

    folder: Path
    config: ImageFinetuneConfig
    trains: dict[int, ImageData]  # of each seed
    data: dict[str, ImageData]
    mean: Tensor
    std: Tensor
    device: torch.device

    def train(self, arm: str, seed: int, learning_rate: float, say: Say) -> Trained[ImageClassifier]:
        """One training and its scores."""
        model = build(self.folder, self.config, self.trains[seed], self.mean, self.std, seed, fresh=arm == RANDOM)
        config = for_random_start(self.config) if arm == RANDOM else self.config
        loss, steps = train_classifier(model, self.trains[seed], config, learning_rate, seed, self.device, say)
        logits = {name: predict(model, part.images, self.config, self.device) for name, part in self.data.items()}
        scores = {name: image_metrics(values, self.data[name].labels) for name, values in logits.items()}
        if self.config.linear_probe == "regression":
            for name, accuracy in self.neighbours(model, self.trains[seed]).items():
                scores[name][KNN] = accuracy
        same = len(np.unique(logits["test"].argmax(1))) == 1 and len(logits["test"]) > 1 and not self.data["test"].several
        stuck = f"it says {self.data['test'].classes[logits['test'][0].argmax()]!r} for every image" if same else None
        records = image_records(logits["test"], self.data["test"].labels, metric_of(self.config, self.data["test"]))
        return Trained(model, scores, loss, steps, stuck, records)

    def neighbours(self, model: ImageClassifier, train: ImageData) -> dict[str, float]:
        """What the nearest training images say of each part, by the features that a probe sees."""

        def features(data: ImageData) -> Tensor:
            return of_whole_images(model, model.features, data.images, self.config, self.device)

        known, labels = features(train), torch.from_numpy(train.labels).to(self.device)
        return {
            name: knn_accuracy(known, labels, features(part), torch.from_numpy(part.labels).to(self.device)) for name, part in self.data.items()
        }


def build(
    folder: Path, config: ImageFinetuneConfig, train: ImageData, mean: Tensor, std: Tensor, seed: int, fresh: bool = False
) -> ImageClassifier:
    """The network of a folder, or the same one from random initialisation, under a new head; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_int(seed) >> 1)
        probe = config.linear_probe != "off"
        encoder, _ = load_vit(folder, drop_path=0.0 if probe else config.drop_path)
        if fresh:
            encoder = ViT(encoder.config)
        if config.train_positions and not probe:
            train_positions(encoder)
        if config.dropout and not probe:
            hidden_dropout(encoder, config.dropout)
        model = ImageClassifier(encoder, len(train.classes), config.pooling, mean, std, probe, config.head_deviation)
        use_fast_kernels(model)
        return model


def train_positions(encoder: ViT) -> None:
    """Makes a fixed table of positions a parameter, with the values that it has."""
    if "pos_embed" in encoder._buffers:
        values = encoder._buffers.pop("pos_embed")
        assert values is not None
        encoder.pos_embed = nn.Parameter(values)
        encoder.config = encoder.config.at(positions="learned")


def parameter_groups(model: ImageClassifier, config: ImageFinetuneConfig) -> list[dict[str, Any]]:
    """Groups with `lr_scale` by depth; vectors, positions and the class token do not decay (facebookresearch/mae util/lr_decay.py), scales of norms
    where asked."""
    named = {name.removeprefix("encoder."): value for name, value in model.named_parameters() if value.requires_grad}
    scales = layer_scales(list(named), model.encoder.config.num_layers, config.layer_decay)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, value in named.items():
        scale_of_norm = config.decay_norms and "norm" in name and name.endswith("weight")
        decay = config.weight_decay if scale_of_norm or (value.ndim > 1 and name not in ("pos_embed", "cls_token")) else 0.0
        groups.setdefault((scales[name], decay), {"params": [], "weight_decay": decay, "lr_scale": scales[name]})["params"].append(value)
    return list(groups.values())


def train_classifier(
    model: ImageClassifier,
    data: ImageData,
    config: ImageFinetuneConfig,
    learning_rate: float,
    seed: int,
    device: torch.device,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[float, int]:
    """Trains in place, for `config.steps` steps or int(images // batch * epochs); a regression, which has no steps, at once.

    Returns:
        the mean loss an image over the last epoch, and the number of steps.

    Raises:
        UsageError: RandAugment of other than 8-bit images.
        Diverged: the loss is not finite.
    """
    if config.randaugment and data.images.dtype != np.uint8:
        raise UsageError(f"RandAugment changes 8-bit images, these are {data.images.dtype}.", "Leave it out: --randaugment 0.")
    head = model.head
    assert isinstance(head, nn.Linear)
    if config.linear_probe == "regression":
        features = of_whole_images(model, model.features, data.images, config, device)
        return fit_head(head, features, torch.from_numpy(data.labels).to(device)), 0
    if config.linear_probe == "lars":
        model.head = normalised_head(head)
    model.to(device).train()
    images, labels = torch.from_numpy(data.images).to(device), torch.from_numpy(data.labels).to(device)
    a_batch = min(config.batch, len(data))
    steps_an_epoch = len(data) // a_batch  # what is left over waits for another epoch's order, as in MAE's loader
    total = config.steps or max(1, int(steps_an_epoch * config.epochs))
    schedule = ScheduleConfig(config.schedule, warmup_share=config.warmup_share, minimum_share=config.minimum_share)
    precision = precision_of(config, device)
    groups = parameter_groups(model, config)
    optimizer: torch.optim.Optimizer
    if config.linear_probe == "lars":
        optimizer = Lars(groups, lr=learning_rate)
    else:
        optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, config.beta2), fused=True)
    regulariser = Regulariser(config.regulariser, model.encoder, optimizer, learning_rate)
    parameters = list(model.parameters())
    losses = EpochLoss(total, learning_rate, device, say)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(mix_int(seed + 1) >> 1)  # drop path
        for step in range(total):
            if step % steps_an_epoch == 0:
                batches = whole_batches(len(data), a_batch, seed, step // steps_an_epoch)
                losses.begin_epoch()
            rows = torch.from_numpy(batches[step % steps_an_epoch]).to(device)
            wanted = labels[rows].float() if data.several else soft_targets(labels[rows], len(data.classes), config.label_smoothing)
            inputs, wanted = augmented(images[rows], wanted, model, config, rows, seed, step)
            set_learning_rate(optimizer, learning_rate * multiplier(step, total, schedule))
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, precision):
                logits = model(inputs)
            loss = F.binary_cross_entropy_with_logits(logits, wanted) if data.several else F.cross_entropy(logits, wanted)
            loss.backward()
            clip_gradients(parameters, config.clip_norm)
            regulariser.step()
            losses.add(loss * len(rows))
            losses.end_step(step, len(rows))
    mean_loss = losses.mean()
    if isinstance(model.head, nn.Sequential):
        model.head = folded(model.head)
    model.eval()
    return mean_loss, total


def augmented(
    images: Tensor, wanted: Tensor, model: ImageClassifier, config: ImageFinetuneConfig, rows: Tensor, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Crop, flip, RandAugment, erasing, mixup and cutmix of a batch; what is drawn depends on seed, step and the numbers of the images.

    Args:
        images: [batch, channels, height, width], as stored; wanted: float32 [batch, classes]; rows: int64 [batch], numbers of the images.

    Returns:
        what the network sees, float32 [batch, channels, size, size], and what it should say, [batch, classes].
    """
    rng = Rng.at(seed, step, rows)
    cut = random_resized_crop_flip(images, rng, model.encoder.config.image_size[0], (config.crop_smallest, 1.0), flip=config.flip)
    if config.randaugment:
        cut = randaugment(cut, Rng.at(seed, step, rows.cpu()), config.randaugment, model.mean)
    inputs = erase(normalize(cut, model.mean, model.std), rng, config.erasing)
    return mix(inputs, wanted, np.random.default_rng([mix_int(seed), step]), config.mixup, config.cutmix)


def whole_batches(count: int, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Images of an epoch, in an order of its own, without the last, smaller batch (facebookresearch/mae main_finetune.py: drop_last).

    AdamW's steps are as long for 4 images as for 32: with 100 chest X-rays every fourth batch was one of 4, and a network from a random start came to
    an AUC of .78, without them to .88.
    """
    return [rows for rows in epoch_batches(np.ones(count, np.int64), batch, seed, epoch) if len(rows) == batch]


@torch.no_grad()
def frozen_features(folder: str | Path, images: np.ndarray, mean: Tensor, std: Tensor, pooling: str = "mean") -> Tensor:
    """float32 [n, dim]: the vectors of whole images from the encoder as it is, for `engine.probes` (kNN, linear probe)."""
    encoder, _ = load_vit(folder)
    encoder.eval()
    size = encoder.config.image_size[0]
    parts = (torch.from_numpy(images[start : start + EVAL_BATCH]) for start in range(0, len(images), EVAL_BATCH))
    return torch.cat([encoder.pool(encoder(normalize(resize(part, size), mean, std)), pooling) for part in parts])  # type: ignore[arg-type]


def metric_of(config: ImageFinetuneConfig, data: ImageData) -> str:
    """The metric that arms are compared by.

    Raises:
        UsageError: these labels have no such metric.
    """
    known: tuple[str, ...] = ("map", "auc") if data.several else ("accuracy", "balanced_accuracy", "auc")
    known += (KNN,) if config.linear_probe == "regression" else ()
    if config.metric == "auto":
        return known[0]
    if config.metric not in known:
        raise UsageError(f"The labels have no metric {config.metric}.", f"Choose one of: {', '.join(known)}.")
    return config.metric


def statistics(folder: Path, train: ImageData) -> tuple[Tensor, Tensor]:
    """float32 [channels] mean and deviation in the values of the images: those that the network was trained with, as its folder says; else those of
    the training images."""
    if (stated := stated_statistics(folder, train.images.shape[1])) is not None:
        return stated
    values = train.images.astype(np.float64)
    return torch.tensor(values.mean((0, 2, 3)), dtype=torch.float32), torch.tensor(values.std((0, 2, 3)), dtype=torch.float32)


def _read(data: Any, network: ViT, classes: list[str] | None, separator: str | None, reading: Reading) -> ImageData:
    if not isinstance(data, ImageData):
        return read_images(data, network.config.channels, network.config.image_size[0], classes, separator=separator, reading=reading)
    if data.images.shape[1] != network.config.channels:
        raise UsageError(f"The images have {data.images.shape[1]} channels, the network {network.config.channels}.", "Give images of that kind.")
    return data
