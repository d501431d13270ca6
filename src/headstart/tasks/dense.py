"""Fine-tuning for dense tasks, a number or class of every pixel, several seeds, always beside the same network from random initialisation.

    segmentation, dense-regression, depth     any vision transformer of ours under a head (one image)
    stereo, flow                              encoder and decoder of CroCo under a head (two views); of another encoder the decoder starts fresh

The procedure is CroCo's (naver/croco stereoflow/train.py): AdamW, warm-up and cosine, random parts of the images, test images by overlapping windows.

    result = finetune_dense("stereo", "runs/croco-tiny-0/export", "train/", "test/")
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
from torch import Tensor

from headstart.backbones.croco import Binocular, CrossDecoder, DecoderConfig
from headstart.backbones.vit import ViT
from headstart.backbones.vit_blocks import grid_of
from headstart.core.errors import BadInput, UsageError
from headstart.core.rng import mix_int
from headstart.engine.device import use_device
from headstart.interop.croco import find_croco
from headstart.interop.vit import load_vit, stated_reading, stated_statistics
from headstart.tasks.arms import Say, Trained, of_each_seed, refuse_choosing_on_test, run_arms, seeds_and_draws, stuck_warnings
from headstart.tasks.dense_config import CONFIGS, DenseConfig
from headstart.tasks.dense_data import DenseData, read_dense
from headstart.tasks.dense_network import DenseModel, DPTHead, LinearHead, OneView, TwoView, choose_head, make_head
from headstart.tasks.dense_pictures import draw_predictions
from headstart.tasks.dense_saved import save_dense
from headstart.tasks.dense_tasks import DenseTask, make_task
from headstart.tasks.dense_training import measure, train_dense
from headstart.tasks.image_leaks import leaks_of
from headstart.tasks.kept import Kept
from headstart.tasks.rectified import unrectified
from headstart.tasks.result import RANDOM, Arm, Result

MAX_FRESH_LAYERS = 12
"""Of a decoder that starts fresh after an encoder from elsewhere: as many as the encoder has, at most these."""


def finetune_dense(
    task: str,
    model: str | Path,
    train: Any,
    test: Any,
    dev: Any = None,
    config: DenseConfig | None = None,
    seeds: int | Sequence[int] = 5,
    baseline: bool = True,
    report: Callable[[str], None] | None = None,
    out: str | Path | None = None,
    kept: Kept | None = None,
) -> Result:
    """Fine-tunes a vision transformer for a dense task and scores it on the test images.

    Args:
        task: segmentation, dense-regression, depth, stereo or flow.
        model: an export of ours, a folder of transformers or timm, a checkpoint file (CroCo's official ones too).
        train: a folder or list of images and targets (`target_sources.find_targets`), or `DenseData`. A list is one draw of labelled images for each
            seed: the interval then covers the choice of images too.
        test, dev: likewise, one; dev is needed to try several learning rates.
        config: settings of the task, one of `CONFIGS`.
        seeds: how many (0, 1, ...), or which. A seed decides head, order, augmentation and, for the baseline, the whole network.
        baseline: also train the same network from random initialisation, on the same images with the same seeds.
        report: called with lines of progress.
        out: a folder for result.json, the fine-tuned model of the first seed (`dense_saved.load_dense` reads it) and a picture of its predictions.
        kept: trainings of an earlier call into `out`, which are not made again.

    Raises:
        BadInput: a file or the folder cannot be used.
        UsageError: a setting is wrong.
        Diverged: a loss was not finite.
    """
    config = config or _config(task)
    if not isinstance(config, _config_class(task)):
        raise UsageError(f"The settings are a {type(config).__name__}, the task is {task}.", f"Give a {_config_class(task).__name__}.")
    seed_list, draws = seeds_and_draws(seeds, train, "sets of training images")
    refuse_choosing_on_test(config.rates, dev)
    init = Path(model)
    network, notes = load_network(init, 2 if task in ("stereo", "flow") else 1, config.drop_path)
    channels = encoder_of(network).config.channels
    reading = stated_reading(init).with_bands(config.bands)
    read = partial(read_dense, task=task, config=config, channels=channels, reading=reading)
    first = read(draws[0])
    trains = [first, *(read(draw, like=first) for draw in draws[1:])]
    found = {name: read(data, like=first) for name, data in (("test", test), ("dev", dev)) if data is not None}
    job = make_task(task, config, first)
    for part in (*trains[1:], *found.values()):
        _refuse_strange_classes(part, job)
    crop = crop_of(config, network)
    if job.views == 2:
        notes = [*notes, *load_head(assemble(network, job, config, *pixel_statistics(init, first)), init, job.views)]
    by_seed = of_each_seed(seed_list, trains)
    bench = Bench(init, job, config, by_seed, found, *pixel_statistics(init, first), crop, use_device(config.device))
    arms, tuned = run_arms(bench.train, seed_list, config.rates, job.metric, baseline, report or (lambda line: None), job.higher_is_better, kept)
    seen = {content for part in trains for content in part.hashes}
    leaks = leaks_of(found["test"].hashes, found["test"].looks, seen, np.concatenate([part.looks for part in trains]), init)
    counts: dict[str, Any] = {"train": len(first), "draws": len(draws)} | {name: len(part) for name, part in found.items()}
    counts |= {"classes": job.classes} if job.classes else {}
    warnings = [
        *notes,
        *dict.fromkeys(note for part in (*trains, *found.values()) for note in part.notes),
        *stuck_warnings(arms, "Try another learning rate."),
        *bench.warnings(arms),
    ]
    result = Result(task, job.metric, str(init), arms, counts, leaks, warnings, dataclasses.asdict(config), job.higher_is_better)
    if out is not None:

        def write(place: Path) -> None:
            save_dense(place, tuned(), job, crop, config, reading)
            draw_predictions(Path(out), tuned(), job, found["test"], crop, config, bench.device)

        result.save(out, write, kept)
    return result


@dataclasses.dataclass
class Bench:
    """Everything that the trainings of one `finetune_dense` share."""

    init: Path
    task: DenseTask
    config: DenseConfig
    trains: dict[int, DenseData]  # of each seed
    data: dict[str, DenseData]
    mean: Tensor
    std: Tensor
    crop: tuple[int, int]
    device: torch.device

    def train(self, arm: str, seed: int, learning_rate: float, say: Say) -> Trained[DenseModel]:
        """One training and its scores."""
        model = build(self.init, self.task, self.config, self.mean, self.std, seed, fresh=arm == RANDOM)
        loss, steps = train_dense(model, self.task, self.trains[seed], self.crop, self.config, learning_rate, seed, self.device, say)
        found = {name: measure(model, self.task, part, self.crop, self.config, self.device) for name, part in self.data.items()}
        scores, test = {name: part.metrics for name, part in found.items()}, found["test"]
        return Trained(model, scores, loss, steps, test.stuck, test.records, [self.far()] if test.far else [])

    def far(self) -> str:
        """Of a training some predicted length of which neared the width of the window."""
        width = f"Predicted lengths near the width of the window ({self.crop[1]} pixels)"
        return f"{width}: what lies further away cannot be found in it. Give a wider --crop, or smaller images."

    def warnings(self, arms: Sequence[Arm]) -> list[str]:
        found = list(dict.fromkeys(note for arm in arms for run in arm.runs for note in run.notes))
        if self.task.name == "stereo" and (hint := unrectified(next(iter(self.trains.values())))):
            found.append(hint)
        return found


def load_network(init: Path, views: int, drop_path: float = 0.0) -> tuple[ViT | Binocular, list[str]]:
    """The network of a file or folder for one or two views, and what was adapted or starts fresh.

    Two views of an encoder that has no decoder of CroCo's: one of the encoder's width and heads, from torch's global generator.
    """
    found = find_croco(init) if views == 2 or init.is_file() else None
    if found is not None:
        network, notes = found.binocular()
        if views == 1:
            return _dropping(network.encoder, drop_path), []
        return Binocular(_dropping(network.encoder, drop_path), network.decoder), notes
    encoder, notes = load_vit(init, drop_path=drop_path)
    if views == 1:
        return encoder, notes
    shape = encoder.config
    decoder = DecoderConfig(
        hidden_size=shape.hidden_size,
        num_layers=min(shape.num_layers, MAX_FRESH_LAYERS),
        num_heads=shape.num_heads,
        positions="rope" if shape.positions == "rope" else "cosine",
    )
    notes = [*notes, f"The decoder starts fresh, {decoder.num_layers} blocks of the encoder's width: {init} holds an encoder alone."]
    return Binocular(encoder, CrossDecoder(shape.hidden_size, decoder, shape.grid, outputs=0)), notes


def _dropping(encoder: ViT, drop_path: float) -> ViT:
    """The same weights with another drop path."""
    if not drop_path:
        return encoder
    made = ViT(encoder.config.at(drop_path=drop_path))
    made.load_state_dict(encoder.state_dict())
    return made


def encoder_of(network: ViT | Binocular) -> ViT:
    return network.encoder if isinstance(network, Binocular) else network


def afresh(network: ViT | Binocular) -> ViT | Binocular:
    """The same network from random initialisation."""
    if isinstance(network, ViT):
        return ViT(network.config)
    encoder, old = network.encoder, network.decoder
    return Binocular(ViT(encoder.config), CrossDecoder(encoder.config.hidden_size, old.config, old.grid, outputs=0))


def build(
    init: Path, task: DenseTask, config: DenseConfig, mean: Tensor, std: Tensor, seed: int, fresh: bool = False
) -> DenseModel:
    """The network of a folder, or the same one from random initialisation, under a new head; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix_int(seed) >> 1)
        network, _ = load_network(init, task.views, config.drop_path)
        network = afresh(network) if fresh else network
        model = assemble(network, task, config, mean, std)
    if not fresh:
        load_head(model, init, task.views)
    return model


def load_head(model: DenseModel, init: Path, views: int) -> list[str]:
    """Puts the head of CroCo-Stereo or CroCo-Flow, where `init` is such a checkpoint, into a model for two views.

    Returns:
        what of it starts fresh, a sentence each; nothing where the checkpoint has no head.
    """
    found = find_croco(init) if views == 2 else None
    weights = {} if found is None else found.head()
    if not weights:
        return []
    head = model.network.head
    if not isinstance(head, DPTHead):
        return [f"The head starts fresh: that of {init} is DPT (--head dpt)."]
    own = head.dpt.state_dict()
    other = [name for name, value in own.items() if name not in weights or weights[name].shape != value.shape]
    head.dpt.load_state_dict(own | {name: value for name, value in weights.items() if name in own and name not in other})
    return [f"Of the head {len(other)} of {len(own)} parameters start fresh, they have other shapes: {', '.join(other[:4])}."] if other else []


def assemble(network: ViT | Binocular, task: DenseTask, config: DenseConfig, mean: Tensor, std: Tensor) -> DenseModel:
    """A network under a new head for a task; draws from torch's global generator."""
    encoder, decoder = encoder_of(network), network.decoder if isinstance(network, Binocular) else None
    of_decoder = None if decoder is None else decoder.config.num_layers
    name = choose_head(config.head, encoder.config.num_layers, of_decoder, config.hooks)
    head = make_head(name, encoder, decoder, task.channels + task.with_confidence, config.hooks)
    of_task = (task.channels, task.with_confidence)
    inner = OneView(network, head, *of_task) if isinstance(network, ViT) else TwoView(network, head, *of_task)
    model = DenseModel(inner, mean, std, task.shift, task.scale)
    if task.start is not None and isinstance(head, LinearHead):
        model.start_at(task.start)
    return model


def crop_of(config: DenseConfig, network: ViT | Binocular) -> tuple[int, int]:
    """Height and width of what the network sees.

    Raises:
        UsageError: no multiple of the patch, or an odd number of patches for dpt.
    """
    encoder = encoder_of(network)
    height, width = config.crop or encoder.config.image_size
    patch = encoder.config.patch_size
    rows, columns = grid_of(height, width, patch)
    layers = network.decoder.config.num_layers if isinstance(network, Binocular) else None
    if choose_head(config.head, encoder.config.num_layers, layers, config.hooks) == "dpt" and (rows % 2 or columns % 2):
        mend = f"Give --crop with multiples of {2 * patch}, or --head linear."
        raise UsageError(f"The head dpt halves the grid of {rows} x {columns} patches.", mend)
    return height, width


def pixel_statistics(init: Path, data: DenseData) -> tuple[Tensor, Tensor]:
    """float32 [channels] mean and deviation in the values of the images: those that the network was trained with, as its folder says; else those of
    the training images."""
    mean, std = data.image_statistics()
    return stated_statistics(init, len(mean)) or (torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32))


def _config_class(task: str) -> type[DenseConfig]:
    if task not in CONFIGS:
        raise UsageError(f"There is no dense task '{task}'.", f"The tasks: {', '.join(CONFIGS)}.")
    return CONFIGS[task]


def _config(task: str) -> DenseConfig:
    return _config_class(task)()


def _refuse_strange_classes(data: DenseData, task: DenseTask) -> None:
    if task.classes and (strange := [number for number in data.statistics.counts if number >= len(task.classes)]):
        what = f"has the class {strange[0]}, the training masks have {len(task.classes)} (0 to {len(task.classes) - 1})."
        raise BadInput(what, "Correct the masks, or name all classes with --class-names.", file=data.source)
